"""What guests are refused is told: by the kernel's rules and by the resolver, over gRPC."""

import asyncio
import json
import time

import grpc
import pytest
from fake_resolver import FakeResolver, serving
from guests import Stack
from netd_process import configure, running
from packets import udp

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import resolver_pb2
from nexus_rpc.ids import new_vm_id

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
SECONDS = 15


@pytest.fixture
async def netd(namespace, tmp_path):
    configure(tmp_path, resolver=f"unix:{tmp_path}/dns.sock")
    async with running(tmp_path) as netd:
        yield netd


@pytest.fixture
async def resolver(netd, tmp_path):
    resolver = FakeResolver()
    async with serving(resolver, tmp_path / "dns.sock"):
        await resolver.until_synced()
        yield resolver


@pytest.fixture
def outside(namespace, netd, cables):
    stack = cables.host(f"{UPLINK}/24", f"{OUTSIDE}/24")
    # What has no route is refused before any rule is asked.
    Stack(namespace).ip(f"route add default via {OUTSIDE}")
    return stack


async def attach(netd, cables, *rules, mode=pb.EGRESS_MODE_RULES):
    policy = pb.EgressPolicy(mode=mode, rules=rules)
    request = pb.AttachPortRequest(vm_id=new_vm_id(), policy=policy)
    return cables.guest((await netd.stub.AttachPort(request)).port)


async def past(netd, **request):
    call = netd.stub.WatchDenials(pb.WatchDenialsRequest(last=1000, **request))
    return [one.denial async for one in call]


async def until_past(netd, number, **request):
    """Return the denials once there are so many."""
    async with asyncio.timeout(SECONDS):
        while len(found := await past(netd, **request)) < number:  # noqa: ASYNC110  # told by gRPC
            await asyncio.sleep(0.05)
    return found


async def test_a_refused_connection_is_told_with_its_rule(netd, cables, outside):
    guest = await attach(netd, cables, mode=pb.EGRESS_MODE_NONE)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await guest.talk(OUTSIDE, 7001)
    (told,) = await until_past(netd, 1)
    assert abs(told.time.ToNanoseconds() / 1e9 - time.time()) < SECONDS
    told.ClearField("time")
    assert told == pb.Denial(
        vm_id=guest.port.vm_id,
        rule="policy none",
        protocol=pb.PROTOCOL_TCP,
        address=OUTSIDE,
        port=7001,
        count=3,
    )


async def test_a_policys_rule_is_told_by_its_place(netd, cables, outside):
    guest = await attach(
        netd,
        cables,
        pb.EgressRule(cidr="192.0.2.0/24"),
        pb.EgressRule(action=pb.ACTION_DENY, cidr="198.51.100.0/24"),
    )
    with pytest.raises(ConnectionRefusedError):
        await guest.talk(OUTSIDE, 7001)
    with pytest.raises(ConnectionRefusedError):
        await guest.talk("203.0.113.1", 7001)
    told = await until_past(netd, 2, vm_id=guest.port.vm_id)
    assert [(one.rule, one.address) for one in told] == [
        ("rule 1", OUTSIDE),
        ("no rule", "203.0.113.1"),
    ]


async def test_who_forges_a_source_is_told_and_not_who_is_forged(netd, cables):
    liar, victim = [await attach(netd, cables, mode=pb.EGRESS_MODE_OPEN) for _ in range(2)]
    liar.throw(
        liar.up(udp(victim.address, OUTSIDE, 9, 9, b"forged")),
        liar.up(udp(victim.address, OUTSIDE, 9, 9, b"forged"), source=victim.mac),
        liar.up(udp(victim.address, OUTSIDE, 9, 10, b"forged"), source="02:00:00:00:00:01"),
    )
    told = await until_past(netd, 2)
    assert {one.vm_id for one in told} == {liar.port.vm_id}
    assert {one.rule for one in told} == {"spoofed"}
    assert sum(one.count for one in told) == 3
    assert await past(netd, vm_id=victim.port.vm_id) == []


async def test_names_are_told_and_addresses_by_the_name_they_were_given_for(
    netd, resolver, cables, outside
):
    guest = await attach(
        netd,
        cables,
        pb.EgressRule(domain="pypi.org", protocol=pb.PROTOCOL_TCP, first_port=7001),
        # TEST-NET-2 is not public: for the resolver to give it out, a rule must allow it.
        pb.EgressRule(cidr=f"{OUTSIDE}/32", protocol=pb.PROTOCOL_UDP, first_port=9),
    )
    vm_id = guest.port.vm_id
    (said,) = await resolver.next()
    assert said.guest.vm_id == vm_id
    assert [(one.pattern, one.slot) for one in said.guest.names] == [("pypi.org", 0)]

    async def told(number):
        return (await until_past(netd, number, vm_id=vm_id))[-1]

    async with outside.telling_peers(OUTSIDE, 7001):
        resolver.to_say.put_nowait(
            resolver_pb2.DriveResponse(
                denial=resolver_pb2.NameDenial(vm_id=vm_id, domain="evil.example", rule="name")
            )
        )
        last = await told(1)
        assert (last.rule, last.domain, last.address) == ("name", "evil.example", "")
        with pytest.raises(ConnectionRefusedError):
            await guest.talk(OUTSIDE, 7001)
        last = await told(2)
        assert (last.rule, last.address, last.domain) == ("no rule", OUTSIDE, "")
        resolver.to_say.put_nowait(
            resolver_pb2.DriveResponse(
                pin=resolver_pb2.PinRequest(
                    number=1, vm_id=vm_id, domain="pypi.org", addresses=[OUTSIDE], ttl=60, slots=[0]
                )
            )
        )
        assert (await resolver.next())[0].pinned == 1
        assert await guest.talk(OUTSIDE, 7001) == UPLINK
        with pytest.raises(ConnectionRefusedError):
            await guest.talk(OUTSIDE, 7002)
        last = await told(3)
        assert (last.rule, last.port, last.domain) == ("no rule", 7002, "pypi.org")


async def test_a_flood_costs_events_and_not_the_service(netd, cables, outside):
    guest = await attach(netd, cables, mode=pb.EGRESS_MODE_NONE)
    for port in range(1, 3_000):
        guest.throw(guest.up(udp(guest.address, OUTSIDE, 9, port, b"flood")))
    told = await until_past(netd, 10)
    assert len(told) < 200
    counted = (await netd.stub.GetPort(pb.GetPortRequest(vm_id=guest.port.vm_id))).port.counters
    assert counted.denied_packets == 2_999


async def test_denials_are_logged(netd, cables, outside):
    guest = await attach(netd, cables, mode=pb.EGRESS_MODE_NONE)
    guest.throw(guest.up(udp(guest.address, OUTSIDE, 9, 53, b"question")))
    await until_past(netd, 1)
    lines = [json.loads(line) for line in (netd.directory / "log").read_text().splitlines()]
    (told,) = [line for line in lines if line["message"] == "denied"]
    fields = ("vm_id", "rule", "protocol", "address", "port", "count")
    assert [told[name] for name in fields] == [
        guest.port.vm_id, "policy none", "UDP", OUTSIDE, 53, 1,
    ]  # fmt: skip


async def test_watchers_are_let_go_when_netd_stops(netd, cables, outside):
    guest = await attach(netd, cables, mode=pb.EGRESS_MODE_NONE)
    call = netd.stub.WatchDenials(pb.WatchDenialsRequest(follow=True, last=1))
    guest.throw(guest.up(udp(guest.address, OUTSIDE, 9, 53, b"question")))
    async with asyncio.timeout(SECONDS):
        await call.read()
        netd.process.terminate()
        assert await call.read() is grpc.aio.EOF
        assert await netd.process.wait() == 0
