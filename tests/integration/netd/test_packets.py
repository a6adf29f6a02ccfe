"""Who reaches whom, with the sockets of real network stacks; for attacks see `hostile`."""

import pytest
from guests import Stack

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.ids import new_vm_id

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
SILENCE = 0.5
"""Seconds without an answer that count as none; an answer takes well under a millisecond."""


@pytest.fixture
async def guests(netd, cables):
    requests = [pb.AttachPortRequest(vm_id=new_vm_id()) for _ in range(2)]
    return [cables.guest((await netd.stub.AttachPort(request)).port) for request in requests]


@pytest.fixture
def here(namespace):
    return Stack(namespace)


@pytest.fixture
def outside(netd, cables):
    """A host that has no route to the guests' subnet: only NAT can bring its answers back."""
    return cables.host(f"{UPLINK}/24", f"{OUTSIDE}/24")


async def test_guests_ping_their_gateway(guests):
    for guest in guests:
        assert await guest.ping(guest.port.gateway)


async def test_guests_are_told_at_once_that_they_do_not_reach_each_other(guests):
    one, other = guests
    async with other.telling_peers(other.address, 7000):
        with pytest.raises(ConnectionRefusedError):
            await one.talk(other.address, 7000)
    assert not await one.ping(other.address, SILENCE)


async def test_guests_reach_the_outside_by_nat(guests, outside):
    async with outside.telling_peers(OUTSIDE, 7001):
        for guest in guests:
            assert await guest.ping(OUTSIDE)
            assert await guest.talk(OUTSIDE, 7001) == UPLINK


async def test_host_services_are_refused_on_every_address(guests, outside, here):
    async with here.telling_peers("0.0.0.0", 7002):  # the point: every address
        for address in (guests[0].port.gateway, UPLINK):
            with pytest.raises(ConnectionRefusedError):
                await guests[0].talk(address, 7002)
        assert await outside.talk(UPLINK, 7002) == OUTSIDE
        assert await here.talk(guests[0].port.gateway, 7002)


async def test_the_host_reaches_its_guests(guests, here):
    async with guests[0].telling_peers(guests[0].address, 7003):
        assert await here.talk(guests[0].address, 7003) == guests[0].port.gateway
        assert await here.ping(guests[0].address)


async def test_others_are_forwarded_as_before_but_not_into_the_subnet(guests, outside, cables):
    """A network of somebody else's, forwarded by this host, such as Docker's or libvirt's."""
    foreign = cables.host("192.0.2.1/24", "192.0.2.2/24")
    for stack, gateway in ((foreign, "192.0.2.1"), (outside, UPLINK)):
        stack.ip(f"route add default via {gateway}")
    async with outside.telling_peers(OUTSIDE, 7004), foreign.telling_peers("192.0.2.2", 7004):
        assert await foreign.talk(OUTSIDE, 7004) == "192.0.2.2"  # no NAT for others
        assert await outside.talk("192.0.2.2", 7004) == OUTSIDE
    async with guests[0].telling_peers(guests[0].address, 7005):
        with pytest.raises(ConnectionRefusedError):
            await outside.talk(guests[0].address, 7005)


async def test_a_detached_port_is_silent_and_the_next_holder_is_heard(netd, guests, cables):
    one = guests[0]
    await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=one.port.vm_id))
    assert not await one.ping(one.port.gateway, SILENCE)
    port = (await netd.stub.AttachPort(pb.AttachPortRequest(vm_id=new_vm_id()))).port
    assert port.ipv4 != one.port.ipv4
    assert await cables.guest(port).ping(port.gateway)
