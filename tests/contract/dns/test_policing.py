"""What makes pins and takes denials: the place that a stream drives, and its stand-in."""

import asyncio

import pytest
from dns_fakes import FakeNetd

from nexus_dns.driver import Denial, Driver, Pin, Session

PIN = Pin("vm", "pypi.org", ("8.8.8.8",), 60, (0, 3))
DENIAL = Denial("vm", "evil.net", "name")


class Driving:
    """netd's end of a session."""

    def __init__(self, session):
        self.makes_pins = True
        self.pins = []
        self.denials = asyncio.Queue()
        self._session = session

    async def run(self):
        while True:
            said = await self._session.next()
            if isinstance(said, Denial):
                self.denials.put_nowait(said)
                continue
            number, pin = said
            self.pins.append(pin)
            self._session.settle(number, pinned=self.makes_pins)


@pytest.fixture(params=["real", "fake"])
async def policing(request):
    """Give what is asked for pins, what decides, and a function that returns the next denial."""
    if request.param == "fake":
        fake = FakeNetd()

        async def first():
            return fake.denials.pop(0)

        yield fake, fake, first
        return
    driver, session = Driver(), Session()
    session.synced = True
    netd = Driving(session)
    running = asyncio.create_task(netd.run())
    with driver.driven_by(session):
        yield driver, netd, netd.denials.get
    running.cancel()
    await asyncio.wait([running])


async def test_pins(policing):
    asked, netd, _ = policing
    assert await asked.pin(PIN) is True
    netd.makes_pins = False
    assert await asked.pin(PIN) is False
    assert netd.pins == [PIN, PIN]


async def test_denials_are_taken_without_waiting(policing):
    asked, _, denial = policing
    asked.deny(DENIAL)
    async with asyncio.timeout(5):
        assert await denial() == DENIAL
