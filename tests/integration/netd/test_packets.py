"""Who reaches whom, with packets as evidence."""

import socket
import struct

import pytest
from guests import Stack, echo_request, mac_bytes

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.ids import new_vm_id

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
BROADCAST = "ff:ff:ff:ff:ff:ff"
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


def arp(operation, sender_mac, sender, target):
    return (
        struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
        + mac_bytes(sender_mac)
        + socket.inet_aton(sender)
        + bytes(6)
        + socket.inet_aton(target)
    )


def ipv4(source, destination, payload):
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, socket.IPPROTO_ICMP, 0,
        socket.inet_aton(source), socket.inet_aton(destination),
    )  # fmt: skip
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", 0xFFFF & ~total) + head[12:] + payload


async def test_guests_ping_their_gateway(guests):
    for guest in guests:
        assert await guest.ping(guest.port.gateway)


async def test_guests_do_not_reach_each_other_on_the_bridge(guests):
    one, other = guests
    assert await one.ping(one.port.gateway)
    assert not await one.ping(other.address, SILENCE)
    one.send(BROADCAST, ARP, arp(1, one.mac, one.address, other.address))
    one.send(other.mac, IPV4, ipv4(one.address, other.address, echo_request()))
    one.send("33:33:00:00:00:01", IPV6, bytes(40))
    one.send("01:00:5e:00:00:fb", IPV4, ipv4(one.address, "224.0.0.251", echo_request()))
    # What was sent before is delivered before: the answers to these come after it.
    assert await one.ping(one.port.gateway)
    assert await other.ping(one.port.gateway)
    assert other.heard_from(one.port.mac) == []
    assert other.heard


async def test_guests_do_not_reach_each_other_through_the_gateway(guests):
    one, other = guests
    for guest, peer in ((one, other), (other, one)):
        guest.ip(f"route add {peer.address} via {guest.port.gateway}")
    async with other.telling_peers(other.address, 7000):
        assert not await one.ping(other.address, SILENCE)
        with pytest.raises(OSError, match="Errno 113"):
            await one.talk(other.address, 7000)
    assert await other.ping(one.port.gateway)
    wanted = socket.inet_aton(one.address)
    assert not [frame for frame in other.heard if frame[26:30] == wanted]


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
        with pytest.raises(OSError, match="Errno 113"):
            await outside.talk(guests[0].address, 7005)


async def test_a_guest_cannot_pass_for_another(guests, here):
    one, other = guests
    assert await one.ping(one.port.gateway)
    gateway_mac = "02:fc:ac:10:00:01"
    # With the other's MAC and address: the answer would show that it was heard.
    one.send(
        gateway_mac, IPV4, ipv4(other.address, one.port.gateway, echo_request()), source=other.mac
    )
    # "The other's address is at my MAC": to be believed, it would draw the other's packets.
    for operation in (1, 2):
        one.send(gateway_mac, ARP, arp(operation, one.mac, other.address, one.port.gateway))
    assert await one.ping(one.port.gateway)
    assert [frame for frame in other.heard if frame[34:35] == b"\0"] == []
    assert await here.ping(other.address)
    assert not [frame for frame in one.heard if frame[30:34] == socket.inet_aton(other.address)]


async def test_a_guest_with_a_foreign_source_is_not_forwarded(guests, outside):
    one = guests[0]
    assert await one.ping(OUTSIDE)
    with outside.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        one.send("02:fc:ac:10:00:01", IPV4, ipv4("203.0.113.9", OUTSIDE, echo_request()))
        assert await one.ping(OUTSIDE)
        seen = []
        while True:
            try:
                seen.append(icmp.recv(2048)[12:16])
            except BlockingIOError:
                break
    assert set(seen) == {socket.inet_aton(UPLINK)}


async def test_a_detached_port_is_silent_and_the_next_holder_is_heard(netd, guests, cables):
    one = guests[0]
    await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=one.port.vm_id))
    assert not await one.ping(one.port.gateway, SILENCE)
    port = (await netd.stub.AttachPort(pb.AttachPortRequest(vm_id=new_vm_id()))).port
    assert port.ipv4 != one.port.ipv4
    assert await cables.guest(port).ping(port.gateway)
