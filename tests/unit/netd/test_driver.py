"""The driver, against a resolver's servicer over a unix socket, as it is to meet the real one."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Network, ip_address

import pytest
from driven import SPEC, Pins, StuckCall, kinds, put
from fake_resolver import FakeResolver, serving

from nexus.netd.v1 import resolver_pb2 as pb
from nexus_netd import driver as driving
from nexus_netd.driver import Driver, served_guest
from nexus_netd.feed import Feed
from nexus_netd.model import (
    EgressRule,
    Link,
    Mode,
    Policy,
    Protocol,
)
from nexus_netd.view import View
from nexus_rpc.errors import FailedPrecondition


@pytest.fixture
def view():
    view = View()
    view.put_network(SPEC)
    return view


@pytest.fixture
def feed():
    return Feed()


@pytest.fixture
def resolver():
    return FakeResolver()


@pytest.fixture
def pins():
    return Pins()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dns.sock"


@pytest.fixture
def serve_only(resolver, path):
    return lambda: serving(resolver, path)


@pytest.fixture
def denials():
    """What the resolver refused."""
    return asyncio.Queue()


@pytest.fixture
async def serve(serve_only, drive):
    """Drive, and serve the fake resolver while a block runs."""

    @asynccontextmanager
    async def serve():
        drive()
        async with serve_only():
            yield

    return serve


@pytest.fixture
async def drive(view, feed, pins, path, denials):
    """Begin to drive, at the first call."""
    tasks = []

    def drive():
        if not tasks:
            target = f"unix:{path}"
            driver = Driver(target, view, feed, pins, lambda *one: denials.put_nowait(one))
            tasks.append(asyncio.create_task(driver.run()))

    yield drive
    for task in tasks:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_whole_view_is_said_first_networks_before_guests(view, serve, resolver):
    view.put_network(replace(SPEC, name="other", ipv6=None))
    for number in (2, 3):
        put(view, number)
    async with serve():
        said = await resolver.until_synced()
    assert kinds(said) == [
        ("network", "default"),
        ("network", "other"),
        ("guest", "vm2"),
        ("guest", "vm3"),
    ]
    assert said[0].network == pb.ServedNetwork(
        name="default", listen=["10.9.0.1", "fd00:9::1"], upstream=["192.0.2.53"]
    )
    assert said[2].guest == pb.ServedGuest(
        vm_id="vm2",
        addresses=["10.9.0.2", "fd00:9::2"],
        network="default",
        name="name2",
        any_name=True,
        private_ok=driving._PRIVATE,
    )


def test_a_guest_is_told_with_the_names_of_its_rules(view):
    rules = (
        EgressRule(domain="pypi.org"),
        EgressRule(cidr=IPv4Network("10.1.0.0/16")),
        EgressRule(allow=False, cidr=IPv4Network("10.2.0.0/16")),
        EgressRule(domain="*.pypi.org", protocol=Protocol.TCP, ports=(443, 443)),
    )
    put(view, 2, Policy(Mode.RULES, rules), upstream_dns=("192.0.2.9",))
    for ports in ((80,), (443,)):
        view.put_link(Link("vm2", "vm3", Protocol.TCP, ports))
    view.put_link(Link("vm3", "vm2"))
    assert served_guest(view, "vm2") == pb.ServedGuest(
        vm_id="vm2",
        addresses=["10.9.0.2", "fd00:9::2"],
        network="default",
        name="name2",
        upstream=["192.0.2.9"],
        names=[
            pb.AllowedName(pattern="pypi.org", slot=0),
            pb.AllowedName(pattern="*.pypi.org", slot=3),
        ],
        linked=["vm3"],
        private_ok=["10.1.0.0/16"],
    )


@pytest.mark.parametrize(
    ("policy", "any_name"),
    [
        (Policy(Mode.OPEN), True),
        (Policy(Mode.NONE, (EgressRule(domain="pypi.org"),)), False),
        (Policy(Mode.RULES), False),
        (Policy(Mode.RULES, (EgressRule(allow=False),)), False),
        (Policy(Mode.RULES, (EgressRule(cidr=IPv4Network("192.0.2.0/24")),)), False),
        (Policy(Mode.RULES, (EgressRule(protocol=Protocol.TCP, ports=(443, 443)),)), True),
    ],
)
def test_who_may_reach_any_address_may_know_any_name(view, policy, any_name):
    put(view, 2, policy)
    said = served_guest(view, "vm2")
    assert (said.any_name, len(said.names)) == (any_name, 0)


async def test_changes_follow(view, feed, serve, resolver):
    put(view, 2)
    async with serve():
        await resolver.until_synced()
        put(view, 3)
        feed.tell("attached", "vm3", "default", "")
        assert kinds(await resolver.next()) == [("guest", "vm3")]
        feed.tell("repaired", "vm3", "default", "its TAP")
        view.remove_port("vm2")
        feed.tell("detached", "vm2", "default", "")
        assert kinds(await resolver.next()) == [("guest_gone", "vm2")]
        view.put_network(replace(SPEC, dns=("192.0.2.54",)))
        feed.tell("changed", "", "default", "its DNS")
        said = await resolver.next(2)
        assert kinds(said) == [("network", "default"), ("guest", "vm3")]
        assert said[0].network.upstream == ["192.0.2.54"]
        view.remove_port("vm3")
        view.remove_network("default")
        feed.tell("changed", "", "default", "removed")
        feed.tell("detached", "vm3", "default", "")
        assert kinds(await resolver.next(2)) == [("guest_gone", "vm3"), ("network_gone", "default")]


async def test_who_is_gone_is_said_before_who_has_its_address_now(view, feed, serve, resolver):
    put(view, 2)
    async with serve():
        await resolver.until_synced()
        feed.tell("changed", "vm4", "default", "")
        view.remove_port("vm2")
        feed.tell("detached", "vm2", "default", "")
        put(view, 4)
        feed.tell("attached", "vm4", "default", "")
        assert kinds(await resolver.next(2)) == [("guest_gone", "vm2"), ("guest", "vm4")]


async def test_pins_are_made_before_the_answer(serve, resolver, denials, pins):
    async with serve():
        await resolver.until_synced()
        pins.release.clear()
        request = pb.PinRequest(
            number=7,
            vm_id="vm2",
            domain="pypi.org",
            addresses=["192.0.2.1", "2001:db8::1"],
            ttl=30,
            slots=[0, 3],
        )
        resolver.to_say.put_nowait(pb.DriveResponse(pin=request))
        resolver.to_say.put_nowait(
            pb.DriveResponse(denial=pb.NameDenial(vm_id="vm2", domain="evil.example", rule="name"))
        )
        async with asyncio.timeout(10):
            assert await denials.get() == ("vm2", "evil.example", "name")
        assert resolver.heard.empty()
        pins.release.set()
        assert (await resolver.next())[0].pinned == 7
    addresses = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    assert pins.made == [("vm2", "pypi.org", addresses, 30.0, (0, 3))]


@pytest.mark.parametrize("fault", ["refused", "late"])
async def test_a_pin_that_cannot_be_made_is_said(serve, resolver, pins, fault, monkeypatch):
    if fault == "refused":
        pins.fault = FailedPrecondition("PRIVATE", "it is private")
    else:
        pins.release.clear()
        monkeypatch.setattr(driving, "PIN_SECONDS", 0.01)
    request = pb.PinRequest(number=8, vm_id="vm2", domain="pypi.org", addresses=["192.0.2.1"])
    async with serve():
        await resolver.until_synced()
        resolver.to_say.put_nowait(pb.DriveResponse(pin=request))
        assert (await resolver.next())[0].not_pinned == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": ["192.0.2.256"]},
        {"addresses": ["192.0.2.1"] * 33},
        {"addresses": ["2a04::1%a"]},
        {"slots": [0] * 257},
        {"domain": ""},
        {"domain": "a" * 1_013},
        {"domain": "pypi.org\n"},
    ],
    ids=str,
)
async def test_what_no_resolver_asks_for_is_not_even_tried(serve, resolver, pins, changes):
    asked = {"domain": "pypi.org", "addresses": ["192.0.2.1"], "slots": [0]} | changes
    request = pb.PinRequest(number=8, vm_id="vm2", **asked)
    async with serve():
        await resolver.until_synced()
        resolver.to_say.put_nowait(pb.DriveResponse(pin=request))
        assert (await resolver.next())[0].not_pinned == 8
    assert pins.made == []


async def test_pins_under_way_are_bounded(serve, resolver, denials, pins):
    def request(number):
        return pb.PinRequest(number=number, domain="pypi.org")

    async with serve():
        await resolver.until_synced()
        pins.release.clear()
        for number in range(100):
            resolver.to_say.put_nowait(pb.DriveResponse(pin=request(number)))
        resolver.to_say.put_nowait(pb.DriveResponse(denial=pb.NameDenial(domain="last")))
        async with asyncio.timeout(10):
            await pins.many.wait()
        assert denials.empty()
        assert len(pins.made) == driving.PINS_AT_ONCE
        pins.release.set()
        answers = {answer.pinned for answer in await resolver.next(100)}
        assert answers == set(range(100))
        async with asyncio.timeout(10):
            await denials.get()
    assert len(pins.made) == 100


async def test_a_resolver_that_comes_late_or_anew_is_told_everything(
    view, feed, serve, resolver, caplog
):
    put(view, 2)
    for streams in (1, 2):
        async with serve():
            assert kinds(await resolver.until_synced()) == [
                ("network", "default"),
                ("guest", "vm2"),
            ]
        assert resolver.streams == streams
    async with serve():
        await resolver.until_synced()
        resolver.to_say.put_nowait(None)  # it ends the stream in order
        await resolver.until_synced()
    assert "is not heard: the resolver ended the stream" in caplog.text


async def test_a_driver_that_fell_behind_begins_anew(view, feed, serve, resolver):
    async with serve():
        await resolver.until_synced()
        put(view, 2)
        for _ in range(2_000):
            feed.tell("changed", "vm2", "default", "")
        said = await resolver.until_synced()
    assert ("network", "default") in kinds(said)
    assert ("guest", "vm2") in kinds(said)
    assert resolver.streams == 2


async def test_a_resolver_that_reads_nothing_is_left(view, feed, pins, monkeypatch):
    monkeypatch.setattr(driving, "_WRITE_SECONDS", 0.01)
    call = StuckCall()
    session = driving._Session(view, feed, pins, lambda *_: None)
    error = await session.run(call)
    assert (error.reason, call.cancelled, session.synced) == ("SLOW", True, False)
