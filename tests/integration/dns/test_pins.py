"""An answer with addresses reaches a restricted guest only once they are pinned."""

import asyncio
import time

import grpc
import pytest
from dns_doubles import code, until_heard, values


@pytest.fixture(autouse=True)
def known(names):
    names.answers["pypi.org A"] = ["pypi.org 300 A 151.101.0.223"]
    names.answers["pypi.org TXT"] = ["pypi.org 300 TXT hello"]


async def test_the_answer_waits_for_the_pin(netd, guest):
    netd.pins_by_itself = False
    asking = asyncio.create_task(guest.ask("pypi.org"))
    pin = await netd.pin()
    # Others are served meanwhile, so it is this answer that waits.
    assert code(await guest.ask("worker.nexus")) == "NOERROR"
    assert not asking.done()
    await netd.say(pinned=pin.number)
    assert values(await asking) == ["151.101.0.223"]


async def test_a_pin_that_cannot_be_made(netd, guest):
    netd.pins_by_itself = False
    asking = asyncio.create_task(guest.ask("pypi.org"))
    await netd.say(not_pinned=(await netd.pin()).number)
    answer = await asking
    assert (code(answer), answer.answer) == ("SERVFAIL", [])


async def test_a_netd_that_says_nothing(netd, guest):
    netd.pins_by_itself = False
    began = time.monotonic()
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"
    assert 1.9 < time.monotonic() - began < 8
    # What it says later, and of numbers that never were, is nothing to anybody.
    await netd.say(pinned=(await netd.pin()).number)
    await netd.say(not_pinned=2**64 - 1)
    netd.pins_by_itself = True
    assert values(await guest.ask("pypi.org")) == ["151.101.0.223"]


async def test_a_netd_that_goes_away(netd, guest, opened):
    netd.pins_by_itself = False
    asking = asyncio.create_task(guest.ask("pypi.org"))
    await netd.pin()
    began = time.monotonic()
    await netd.close()
    assert code(await asking) == "SERVFAIL"
    for _ in range(5):
        assert code(await guest.ask("pypi.org")) == "SERVFAIL"
    assert time.monotonic() - began < 6  # nobody waits for one who is gone, who has 2 s each time
    assert values(await guest.ask("pypi.org", "TXT")) == ['"hello"']
    assert values(await guest.ask("worker.nexus")) == ["127.53.0.2"]
    assert code(await guest.ask("evil.net")) == "REFUSED"
    assert values(await opened.ask("pypi.org")) == ["151.101.0.223"]


async def test_a_netd_that_comes_back(resolver, netd, guest, opened):
    await netd.close()
    again = resolver.drive()
    await again.guest("guest", guest.source, name="worker", names=["pypi.org"])
    await until_heard(guest, "worker.nexus")
    assert code(await guest.ask("pypi.org")) == "SERVFAIL"  # it has not said all yet
    assert values(await opened.ask("pypi.org")) == ["151.101.0.223"]  # what was known holds
    await again.network(listen=[guest.gateway], upstream=["127.53.1.1"])
    await again.say(synced=True)
    await until_heard(guest, "pypi.org")
    assert [pin.vm_id for pin in again.made] == ["guest"]
    with pytest.raises(TimeoutError):  # it was not said again
        await opened.ask("pypi.org", seconds=0.3)


async def test_a_new_stream_takes_the_place_of_the_one_before(resolver, netd, guest):
    again = resolver.drive()
    await again.network(listen=[guest.gateway], upstream=["127.53.1.1"])
    await again.guest("guest", guest.source, name="worker", names=["pypi.org"])
    await again.say(synced=True)
    assert await netd.status() == grpc.StatusCode.CANCELLED
    await until_heard(guest, "pypi.org")
    assert (len(netd.made), len(again.made)) == (0, 1)


async def test_a_policy_that_changes_while_a_server_is_asked(names, netd, guest):
    asked = asyncio.Event()
    names.answers["pypi.org A"] = lambda query: asked.set()  # and no answer
    asking = asyncio.create_task(guest.ask("pypi.org"))
    await asked.wait()
    await netd.guest("guest", guest.source, name="worker", names=["example.com"])
    await until_heard(guest, "pypi.org", "REFUSED")
    names.answers["pypi.org A"] = ["pypi.org 300 A 151.101.0.223"]  # the next try gets it
    assert code(await asking) == "REFUSED"
    assert netd.made == []


@pytest.mark.parametrize(
    "what",
    [
        {"guest": {"vm_id": "x", "addresses": ["127.0.0.300"]}},
        {"guest": {"vm_id": "x", "private_ok": ["10.0.0.1/8"]}},
        {"guest": {"vm_id": "x", "names": [{"pattern": "a.*.b"}]}},
        {"guest": {"vm_id": "x", "names": [{"pattern": "a..b"}]}},
        {"guest": {"vm_id": "x", "upstream": ["dns.google"]}},
        {"network": {"name": "x", "listen": ["everywhere"]}},
        {},
    ],
)
async def test_what_cannot_be_said(netd, guest, what):
    await netd.say(**what)
    assert await netd.status() == grpc.StatusCode.INVALID_ARGUMENT
    assert code(await guest.ask("worker.nexus")) == "NOERROR"
