"""The place that drives, and its pins and denials."""

import asyncio

import pytest

from nexus_dns import driver as module
from nexus_dns.driver import Denial, Driver, Pin, Session

PIN = Pin("vm", "pypi.org", ("8.8.8.8",), 60, (0,))


@pytest.fixture
def session():
    session = Session()
    session.synced = True
    return session


async def test_a_pin_is_told_and_settled(session):
    driver = Driver()
    with driver.driven_by(session):
        for pinned in True, False:
            asking = asyncio.create_task(driver.pin(PIN))
            number, pin = await session.next()
            assert pin == PIN
            session.settle(number + 1, pinned=not pinned)  # another's
            session.settle(number, pinned=pinned)
            session.settle(number, pinned=not pinned)  # said twice
            assert await asking is pinned


async def test_nobody_drives_or_one_who_has_not_said_all(session):
    driver = Driver()
    assert not await driver.pin(PIN)
    session.synced = False
    with driver.driven_by(session):
        assert not await driver.pin(PIN)
    session.synced = True
    assert not await driver.pin(PIN)


async def test_a_pin_that_takes_too_long(session, monkeypatch):
    monkeypatch.setattr(module, "PIN_SECONDS", 0.01)
    driver = Driver()
    with driver.driven_by(session):
        assert not await driver.pin(PIN)
        # It is not even told any more, so nothing is pinned for an answer that was given up.
        driver.deny(Denial("vm", "x", "name"))
        assert isinstance(await session.next(), Denial)


async def test_the_end_of_a_stream_fails_its_pins(session):
    driver = Driver()
    with driver.driven_by(session):
        asking = asyncio.create_task(driver.pin(PIN))
        await session.next()
    assert not await asking


async def test_a_new_stream_takes_the_place(session):
    driver = Driver()
    after = Session()
    after.synced = True
    with driver.driven_by(session):
        asking = asyncio.create_task(driver.pin(PIN))
        await session.next()
        with driver.driven_by(after):
            assert not await asking
            await session.over()
            assert driver.is_driven_by(after)
            asking = asyncio.create_task(driver.pin(PIN))
            number, _ = await after.next()
            after.settle(number, pinned=True)
            assert await asking
    with driver.driven_by(session):
        driver.vacate()
        await session.over()
        assert not driver.is_driven_by(session)


async def test_the_end_of_the_one_before_does_not_touch_the_new(session):
    driver = Driver()
    after = Session()
    before = driver.driven_by(session)
    before.__enter__()
    with driver.driven_by(after):
        before.__exit__(None, None, None)
        assert driver.is_driven_by(after)


async def test_what_waits_for_a_slow_driver_is_bounded(session, monkeypatch):
    monkeypatch.setattr(module, "PIN_SECONDS", 0.01)
    driver = Driver()
    with driver.driven_by(session):
        for _ in range(5000):
            driver.deny(Denial("vm", "x", "name"))
        assert session._outgoing.qsize() == 1000
        await asyncio.gather(*(driver.pin(PIN) for _ in range(3000)))
        assert session._outgoing.qsize() == 2000
