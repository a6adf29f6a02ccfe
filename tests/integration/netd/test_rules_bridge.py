"""What a guest's frames meet on the bridge, by real frames."""

import struct

import pytest
from packets import (
    ALL_NODES,
    ALL_ROUTERS,
    ARP,
    BROADCAST,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMPV6,
    IPV4,
    IPV6,
    NOWHERE,
    OVERRIDE,
    QINQ,
    REPLY,
    REQUEST,
    ROUTING,
    TCP,
    UDP,
    arp,
    echo,
    ether,
    fragments,
    group_mac,
    icmp,
    icmpv6_body,
    ipv4,
    ipv6,
    link_local,
    mac_bytes,
    neighbour,
    solicited,
    tag,
    tcp,
    udp,
)
from rules_bench import GATEWAY, GATEWAY6, GATEWAY_MAC, OUTSIDE, OUTSIDE6, Limits, bench, guest

from nexus_netd.linux import nft
from nexus_netd.rules import elements

LSRR = bytes([131, 7, 4, 198, 51, 100, 9, 0])  # RFC 791, 3.1: loose source route
ELSEWHERE = "02:fc:00:00:00:99"


@pytest.fixture
def host(namespace):
    with bench(namespace) as made:
        yield made


@pytest.fixture
def pair(host):
    ports = (guest(0), guest(1))
    host.rules(*ports)
    return [host.plug(port) for port in ports]


def piece(inner, payload, more=1, offset=0):
    """Return an IPv6 fragment header and its payload (RFC 8200, 4.5)."""
    return struct.pack("!BBHI", inner, 0, offset | more, 0x6E78) + payload


def own(me, packet, to=GATEWAY_MAC, source=None, kind=None):
    kinds = {4: IPV4, 6: IPV6}
    return ether(to, source or me.mac, kind or kinds[packet[0] >> 4], packet)


def lawful(me):
    """Return frames that must come through, by name."""
    local = link_local(me.mac)
    asks = arp(REQUEST, me.mac, me.address, NOWHERE, GATEWAY)
    answers = arp(REPLY, me.mac, me.address, GATEWAY_MAC, GATEWAY)
    who = group_mac(solicited(GATEWAY6))
    for_gateway = neighbour(me.address6, solicited(GATEWAY6), 135, GATEWAY6, me.mac)
    own_try = neighbour("::", solicited(me.address6), 135, me.address6)
    own_group = group_mac(solicited(me.address6))
    datagram = udp(me.address6, OUTSIDE6, 9, 9, b"x" * 16)[40:]
    return {
        "ARP question": ether(BROADCAST, me.mac, ARP, asks),
        "ARP answer": ether(GATEWAY_MAC, me.mac, ARP, answers),
        "UDP": own(me, udp(me.address, OUTSIDE, 9, 9, b"")),
        "TCP": own(me, tcp(me.address, OUTSIDE, 9, 9, 2)),
        "UDP in IPv6": own(me, udp(me.address6, OUTSIDE6, 9, 9, b"")),
        "TCP in IPv6": own(me, tcp(me.address6, OUTSIDE6, 9, 9, 2)),
        "echo in IPv6": own(me, echo(me.address6, GATEWAY6, b"")),
        "a piece of UDP": own(me, ipv6(me.address6, OUTSIDE6, FRAGMENT, piece(UDP, datagram))),
        "who has the gateway": ether(who, me.mac, IPV6, for_gateway),
        "is the gateway there": own(me, neighbour(me.address6, GATEWAY6, 135, GATEWAY6, me.mac)),
        "from its link-local address": own(me, neighbour(local, GATEWAY6, 135, GATEWAY6, me.mac)),
        "I have mine": own(
            me, neighbour(me.address6, GATEWAY6, 136, me.address6, me.mac, OVERRIDE)
        ),
        "is mine taken": ether(own_group, me.mac, IPV6, own_try),
    }


def forbidden(me, other):
    """Return frames that must be refused, by name."""
    packet, packet6 = udp(me.address, OUTSIDE, 9, 9, b""), udp(me.address6, OUTSIDE6, 9, 9, b"")
    asks = arp(REQUEST, me.mac, me.address, NOWHERE, GATEWAY)
    everyone, local = group_mac(ALL_NODES), link_local(me.mac)
    advert = icmpv6_body(local, ALL_NODES, 134, 0, bytes(4), bytes(8))
    target = group_mac(solicited(GATEWAY6))
    in_another_name = neighbour(me.address6, solicited(GATEWAY6), 135, GATEWAY6, other.mac)

    def six(protocol, payload, to=OUTSIDE6):
        return own(me, ipv6(me.address6, to, protocol, payload))

    def says(operation, sender_mac, sender, to=BROADCAST, source=None, **more):
        body = arp(operation, sender_mac, sender, GATEWAY_MAC, GATEWAY, **more)
        return ether(to, source or me.mac, ARP, body)

    return {
        "VLAN tag": tag(own(me, packet), 1),
        "priority tag": tag(own(me, packet), 0),
        "two tags": tag(tag(own(me, packet), 2), 1, QINQ),
        "tagged ARP": tag(ether(BROADCAST, me.mac, ARP, asks), 1),
        "tagged IPv6": tag(own(me, packet6), 1),
        "IEEE 802.3": own(me, packet, kind=len(packet)),
        "PPPoE": own(me, packet, kind=0x8864),
        "LLDP": ether("01:80:c2:00:00:0e", me.mac, 0x88CC, bytes(46)),
        "ARP to LLDP's MAC": ether("01:80:c2:00:00:0e", me.mac, ARP, asks),
        "IPv4 to LACP's MAC": own(me, packet, to="01:80:c2:00:00:02"),
        "spanning tree": ether("01:80:c2:00:00:00", me.mac, 38, bytes([0x42, 0x42, 3]) + bytes(43)),
        "an empty frame": ether(GATEWAY_MAC, me.mac, IPV4, b""),
        "half a header": ether(GATEWAY_MAC, me.mac, IPV4, packet[:15]),
        "half an IPv6 header": ether(GATEWAY_MAC, me.mac, IPV6, packet6[:30]),
        "half an ARP": ether(BROADCAST, me.mac, ARP, asks[:12]),
        "IPv6 under IPv4's type": own(me, packet6, kind=IPV4),
        "IPv4 under IPv6's type": own(me, packet, kind=IPV6),
        "a MAC of nobody": own(me, packet, source=ELSEWHERE),
        "another guest's MAC": own(me, packet, source=other.mac),
        "another guest's address": own(me, udp(other.address, OUTSIDE, 9, 9, b"")),
        "another guest": own(me, udp(other.address, OUTSIDE, 9, 9, b""), source=other.mac),
        "the gateway's address": own(me, udp(GATEWAY, OUTSIDE, 9, 9, b"")),
        "the gateway's MAC": own(me, packet, source=GATEWAY_MAC),
        "an address of outside": own(me, udp("203.0.113.9", OUTSIDE, 9, 9, b"")),
        "address 0.0.0.0": own(me, udp("0.0.0.0", OUTSIDE, 9, 9, b"")),
        "DHCP": own(me, udp("0.0.0.0", "255.255.255.255", 68, 67, b""), to=BROADCAST),
        "DHCP in its name": own(me, udp(me.address, "255.255.255.255", 68, 67, b""), BROADCAST),
        "limited broadcast to the gateway": own(me, udp(me.address, "255.255.255.255", 9, 9, b"")),
        "to another guest's MAC": own(me, packet, to=other.mac),
        "to a broadcast MAC": own(me, packet, to=BROADCAST),
        "multicast": own(me, udp(me.address, "224.0.0.251", 9, 9, b""), group_mac("224.0.0.251")),
        "multicast to the gateway": own(me, udp(me.address, "224.0.0.251", 9, 9, b"")),
        "to loopback": own(me, udp(me.address, "127.0.0.1", 9, 9, b"")),
        "to 0.0.0.0": own(me, udp(me.address, "0.0.0.0", 9, 9, b"")),
        "a source route": own(me, ipv4(me.address, OUTSIDE, UDP, packet[20:], options=LSRR)),
        "ARP for another's address": says(REPLY, me.mac, other.address),
        "ARP for the gateway's address": says(REPLY, me.mac, GATEWAY),
        "ARP with another's MAC": says(REPLY, other.mac, me.address),
        "ARP in a frame of another": says(REQUEST, me.mac, me.address, source=other.mac),
        "ARP probe": says(REQUEST, me.mac, "0.0.0.0"),
        "reverse ARP": says(3, me.mac, me.address),
        "ARP of other hardware": says(REQUEST, me.mac, me.address, hardware=6),
        "ARP with other lengths": says(REQUEST, me.mac, me.address, sizes=(8, 4)),
        "another's IPv6 address": own(me, udp(other.address6, OUTSIDE6, 9, 9, b"")),
        "the gateway's IPv6 address": own(me, udp(GATEWAY6, OUTSIDE6, 9, 9, b"")),
        "router advertisement": ether(everyone, me.mac, IPV6, ipv6(local, ALL_NODES, 58, advert)),
        "router advertisement to the gateway": own(me, ipv6(local, GATEWAY6, 58, advert, hops=255)),
        "router solicitation": ether(
            group_mac(ALL_ROUTERS), me.mac, IPV6, icmp(local, ALL_ROUTERS, 133, 0)
        ),
        "redirect": own(me, icmp(local, GATEWAY6, 137, 0, payload=bytes(32))),
        "advertising the gateway": own(
            me, neighbour(me.address6, GATEWAY6, 136, GATEWAY6, me.mac, OVERRIDE)
        ),
        "advertising another": own(
            me, neighbour(me.address6, GATEWAY6, 136, other.address6, me.mac, OVERRIDE)
        ),
        "advertising another's MAC": own(
            me, neighbour(me.address6, GATEWAY6, 136, me.address6, other.mac, OVERRIDE)
        ),
        "advertising to all": ether(
            everyone, me.mac, IPV6, neighbour(me.address6, ALL_NODES, 136, me.address6, me.mac)
        ),
        "asking with another's MAC": ether(target, me.mac, IPV6, in_another_name),
        "asking all": ether(
            everyone, me.mac, IPV6, neighbour(me.address6, ALL_NODES, 135, GATEWAY6, me.mac)
        ),
        "trying another's address": ether(
            group_mac(solicited(other.address6)),
            me.mac,
            IPV6,
            neighbour("::", solicited(other.address6), 135, other.address6),
        ),
        "hop-by-hop options": six(HOP_BY_HOP, bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + packet6[40:]),
        "a routing header": six(ROUTING, bytes([UDP, 0, 0, 0, 0, 0, 0, 0]) + packet6[40:]),
        "destination options": six(DESTINATION, bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + packet6[40:]),
        "a piece of a routing header": six(FRAGMENT, piece(ROUTING, bytes(16))),
        "a piece of a piece": six(FRAGMENT, piece(FRAGMENT, bytes(16))),
        "IPv6 multicast to the gateway": six(UDP, packet6[40:], to="ff02::fb"),
        "group report": ether(
            group_mac("ff02::16"), me.mac, IPV6, ipv6(local, "ff02::16", HOP_BY_HOP, bytes(32))
        ),
        "SCTP in IPv6": six(132, bytes(16)),
        "IPv6 to another's MAC": own(me, ipv6(me.address6, OUTSIDE6, TCP, bytes(20)), other.mac),
        "multicast listener query": six(ICMPV6, bytes([130, 0, 0, 0]) + bytes(20)),
    }  # fmt: skip


def test_lawful_frames_come_through(host, pair):
    me = pair[0]
    ear = host.wire("nexbr0")
    lost = []
    for name, frame in lawful(me).items():
        ear.heard()
        before = host.denied(me.port)
        me.wire.send(frame)
        me.fence()
        # The kernel of the guest may say more of its own accord; only this frame counts.
        if not any(frame[:60] == one[: len(frame[:60])] for one in ear.heard()):
            lost.append(name)
        if host.denied(me.port) != before:
            lost.append(f"{name}: counted")
    assert lost == []


def test_forbidden_frames_are_dropped_and_counted(host, pair):
    me, other = pair
    ears = (host.wire("nexbr0"), other.wire)
    passed = []
    for name, frame in forbidden(me, other).items():
        before = host.denied(me.port)
        for ear in ears:
            ear.heard()
        me.wire.send(frame)
        me.fence()
        if host.denied(me.port) != before + 1:
            passed.append(f"{name}: not counted")
        # A socket is given a frame without its tag.
        if {frame, frame[:12] + frame[16:]} & {one for ear in ears for one in ear.heard()}:
            passed.append(name)
    assert passed == []  # each one by its name
    assert host.denied(other.port) == 0


def test_a_guest_without_ipv6_says_nothing_by_it(host):
    port = guest(0, version6=False)
    host.rules(port)
    me = host.plug(port)
    ear = host.wire("nexbr0")
    local = link_local(me.mac)
    frames = [
        own(me, neighbour(local, GATEWAY6, 135, GATEWAY6, me.mac)),
        own(me, echo(local, GATEWAY6, b"")),
        own(me, udp("fd6e::2", OUTSIDE6, 9, 9, b"")),
        ether(
            group_mac(solicited(local)), me.mac, IPV6, neighbour("::", solicited(local), 135, local)
        ),
    ]
    me.wire.send(*frames)
    me.fence()
    assert host.denied(port) == len(frames)
    assert not [frame for frame in ear.heard() if frame[12:14] == b"\x86\xdd"]


def test_a_port_without_elements_is_silent(host):
    """As between the moment that a TAP is there and the moment that its rules are."""
    host.rules()
    me = host.plug(guest(0))
    ear = host.wire("nexbr0")
    me.wire.send(*lawful(me).values())
    host.change(add=elements.of_guest(me.port))
    me.fence()
    assert len([frame for frame in ear.heard() if frame[6:12] == mac_bytes(me.mac)]) == 1


def test_frames_between_ports_are_not_bridged_even_without_isolation(host, pair):
    me, other = pair
    for one in pair:
        host.here.ip(f"link set {one.port.tap} type bridge_slave isolated off flood on")
    other.wire.heard()
    me.wire.send(own(me, udp(me.address, other.address, 9, 9, b"between"), to=other.mac))
    me.fence()
    assert not [frame for frame in other.wire.heard() if b"between" in frame]


def test_a_tap_that_is_off_its_bridge_reaches_nothing(host, pair):
    me = pair[0]
    outside = host.outside()
    host.here.ip(f"link set {me.port.tap} nomaster")
    host.here.ip(f"route replace {me.address}/32 dev {me.port.tap}")
    mac = host.mac_of(me.port.tap)
    for packet in (
        udp(me.address, OUTSIDE, 9, 9, b"off"),
        udp(me.address6, OUTSIDE6, 9, 9, b"off"),
        echo(me.address, GATEWAY, b"off"),
    ):
        me.up(packet, to=mac)
    assert not outside.wire.until(lambda frame: b"off" in frame, 0.3)
    assert not [frame for frame in me.wire.heard() if b"off" in frame]


@pytest.mark.parametrize("kind", ["packets", "bytes"])
def test_rates_hold_in_both_directions(host, kind):
    rate, size = (50, 100) if kind == "packets" else (50_000, 1_000)
    limits = Limits(**{f"egress_{kind}": rate, f"ingress_{kind}": rate})
    port, free = guest(0, limits=limits), guest(1)
    host.rules(port, free)
    for me, most in ((host.plug(port), 120), (host.plug(free), 400)):
        ear = host.wire("nexbr0")
        packet = udp(me.address, OUTSIDE, 9, 9, b"e" * size)
        me.up(*(packet for _ in range(400)))
        came = len([frame for frame in ear.heard() if b"eee" in frame])
        assert 5 <= came <= most
        back = own(me, udp(GATEWAY, me.address, 9, 9, b"i" * size), to=me.mac, source=GATEWAY_MAC)
        me.wire.heard()
        ear.send(*(back for _ in range(400)))
        came = len([frame for frame in me.wire.heard() if b"iii" in frame])
        assert 5 <= came <= most


def test_pieces_of_packets_are_few(host, pair):
    me = pair[0]
    ear = host.wire("nexbr0")
    for one in pair:
        whole = udp(one.address, OUTSIDE, 9, 9, bytes(64))
        begun = [fragments(whole, 16, ident=n)[0] for n in range(300)]
        ear.heard()
        one.up(*begun)
        one.fence()
        came = [frame for frame in ear.heard() if frame[6:12] == mac_bytes(one.mac)]
        assert 100 <= len(came) <= 150
        assert host.denied(one.port) >= 150
    before = host.denied(me.port)
    me.up(*(udp(me.address, OUTSIDE, 9, 9, b"whole") for _ in range(300)))
    me.fence()
    assert host.denied(me.port) == before


def test_refused_packets_of_each_guest_are_told_ten_a_second(host, pair):
    log = host.log()
    for me in pair:
        me.up(*(udp("203.0.113.9", OUTSIDE, 9, 9, b"") for _ in range(100)))
        me.fence()
        assert host.denied(me.port) == 100
        told = log.told()
        assert 20 <= len(told) <= 30
        assert {(one.reason, one.tap) for one in told} == {("spoofed", me.port.tap)}
    assert nft.denied(host.link)[pair[0].port.ipv6] == 0
