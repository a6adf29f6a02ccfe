"""What a guest's packets meet behind the bridge, by real packets: policies, pins, links, limits."""

import socket
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network

from inet_bench import QUICKLY, connects, passes, plugged, refused, rules, serving
from packets import (
    SYN,
    echo,
    fragments,
    tcp,
    udp,
)
from rules_bench import (
    GATEWAY,
    GATEWAY6,
    METADATA,
    OUTSIDE,
    OUTSIDE6,
    Limits,
    guest,
)

from nexus_netd.model import (
    EgressRule,
    Link,
    Mode,
    Policy,
    Protocol,
)
from nexus_netd.rules import elements, firewall


def test_open_reaches_outside_and_no_metadata(host, outside):
    (me,) = plugged(host, guest(0))
    assert passes(me, outside, udp(me.address, OUTSIDE, 9, 9, b"by-udp4"), b"by-udp4")
    assert passes(me, outside, udp(me.address6, OUTSIDE6, 9, 9, b"by-udp6"), b"by-udp6")
    for destination in (METADATA, "100.100.100.200", "168.63.129.16", "fd00:ec2::254"):
        source = me.address6 if ":" in destination else me.address
        assert refused(me, udp(source, destination, 9, 80, b"secret")) == 1, destination
        assert refused(me, tcp(source, destination, 9, 80, SYN)) == 1, destination
    assert not [f for f in outside.wire.heard() if b"secret" in f]
    assert host.denied(me.port) == 8


def test_none_reaches_nothing(host, outside):
    (me,) = plugged(host, guest(0, Policy(Mode.NONE)))
    for source, destination in ((me.address, OUTSIDE), (me.address6, OUTSIDE6)):
        packets = [
            udp(source, destination, 9, 9, b"none"),
            tcp(source, destination, 9, 9, SYN),
            echo(source, destination, b"none"),
        ]
        assert refused(me, *packets) == len(packets)
    assert not [frame for frame in outside.wire.heard() if b"none" in frame]
    assert {one.reason for one in _told(host, me)} == {"policy none"}


def _told(host, me):
    log = host.log()
    me.up(udp(me.address, OUTSIDE, 9, 9, b""))
    return log.told()


def test_the_first_rule_that_matches_decides(host, outside):
    egress = rules(
        EgressRule(False, ip_network("198.51.100.2/32"), protocol=Protocol.UDP, ports=(53, 53)),
        EgressRule(True, ip_network("198.51.100.0/24"), protocol=Protocol.UDP, ports=(50, 60)),
        EgressRule(True, ip_network("198.51.0.0/16"), protocol=Protocol.ICMP),
        EgressRule(True, ip_network("2001:db8::/32"), protocol=Protocol.ICMP),
        EgressRule(False, protocol=Protocol.TCP),
        EgressRule(True, ip_network(f"{METADATA}/32"), protocol=Protocol.UDP),
    )
    (me,) = plugged(host, guest(0, egress))
    log = host.log()
    for packet, rule in (
        (udp(me.address, OUTSIDE, 9, 53, b"to 53"), "rule 0"),
        (udp(me.address, OUTSIDE, 9, 50, b"to 50"), ""),
        (udp(me.address, OUTSIDE, 9, 60, b"to 60"), ""),
        (udp(me.address, OUTSIDE, 9, 61, b"to 61"), "no rule"),
        (udp(me.address, OUTSIDE, 9, 49, b"to 49"), "no rule"),
        (udp(me.address6, OUTSIDE6, 9, 50, b"to 50 by 6"), "no rule"),
        (echo(me.address, OUTSIDE, b"ping"), ""),
        (echo(me.address6, OUTSIDE6, b"ping by 6"), ""),
        (tcp(me.address, OUTSIDE, 9, 80, SYN), "rule 4"),
        (tcp(me.address6, OUTSIDE6, 9, 80, SYN), "rule 4"),
        (udp(me.address, METADATA, 9, 80, b"secret"), ""),
        (udp(me.address, "169.254.169.253", 9, 80, b"other secret"), "metadata"),
    ):
        outside.wire.heard()
        count = refused(me, packet)
        assert count == bool(rule), rule
        assert [one.reason for one in log.told(QUICKLY)] == ([rule] if rule else []), packet
        assert bool([frame for frame in outside.wire.heard() if packet[-4:] in frame]) != bool(rule)
    assert host.denied(me.port) == 7


def test_refusals_go_on_when_no_more_are_told(host, outside):
    (me,) = plugged(host, guest(0, rules(EgressRule(False, ip_network("198.51.100.0/24")))))
    log = host.log()
    assert refused(me, *(tcp(me.address, OUTSIDE, port, 9, SYN) for port in range(1, 101))) == 100
    assert 20 <= len(log.told()) <= 30
    assert host.denied(me.port) == 100


def test_pins_let_through_until_they_expire(host, outside):
    egress = rules(
        EgressRule(True, domain="example.org", protocol=Protocol.UDP, ports=(9, 9)),
        EgressRule(True, domain="example.net"),
    )
    me, other = plugged(host, guest(0, egress), guest(1, egress))

    def reach(port=9, destination=OUTSIDE, by=me):
        source = by.address6 if ":" in destination else by.address
        mark = str(time.monotonic_ns()).encode()
        return passes(by, outside, udp(source, destination, port, port, mark), mark)

    def pin(destination, slot, seconds):
        source = me.port.ipv6 if ":" in destination else me.port.ipv4
        return elements.of_pin(source, ip_address(destination), slot, seconds)

    assert not reach()
    host.change(add=(pin(OUTSIDE, 0, 60), pin(OUTSIDE6, 0, 60)))
    assert reach()
    assert reach(destination=OUTSIDE6)
    assert not reach(by=other)
    assert not reach(port=10)
    assert not reach(destination="198.51.100.3")
    host.change(add=(pin(OUTSIDE, 1, 2),))
    assert reach(port=10)
    deadline = time.monotonic() + 10
    while reach(port=int(time.monotonic() * 1_000) % 9_000 + 1_000):
        assert time.monotonic() < deadline
    host.change(add=(pin(OUTSIDE, 0, 0.05),))
    host.change(add=(pin(OUTSIDE, 0, 60),))
    time.sleep(QUICKLY)  # the point: the later of two is what counts
    assert reach()


def test_a_connection_outlives_the_pin_that_it_was_opened_by(host, outside):
    (me,) = plugged(host, guest(0, rules(EgressRule(True, domain="example.org"))))
    with (
        serving(outside, socket.AF_INET, socket.SOCK_DGRAM, OUTSIDE, 7000) as server,
        me.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        pin = elements.of_pin(me.port.ipv4, ip_address(OUTSIDE), 0, 60)
        host.change(add=(pin,))
        client.settimeout(2)
        client.connect((OUTSIDE, 7000))
        client.send(b"one")
        server.sendto(b"two", server.recvfrom(9)[1])
        assert client.recv(9) == b"two"
        host.change(remove=(pin,))
        client.send(b"three")
        assert server.recv(9) == b"three"
    assert refused(me, udp(me.address, OUTSIDE, 9, 7001, b"")) == 1


def test_links_lead_one_way(host):
    ports = [guest(number) for number in range(3)]
    link = Link("vm0", "vm1", Protocol.TCP, (7000, 7001))
    me, other, third = plugged(host, *ports, more=elements.of_link(link, *ports[:2]), silent=False)
    for family, mine, theirs in (
        (socket.AF_INET, me.address, other.address),
        (socket.AF_INET6, me.address6, other.address6),
    ):
        with (
            serving(other, family, socket.SOCK_STREAM, theirs, 7001),
            serving(other, family, socket.SOCK_STREAM, theirs, 7002),
            serving(me, family, socket.SOCK_STREAM, mine, 7001),
        ):
            assert connects(me, theirs, 7001)
            assert connects(me, theirs, 7002) is False
            assert connects(other, mine, 7001) is False
            assert connects(third, theirs, 7001) is False
    gone = elements.of_link(link, *ports[:2])
    host.change(remove=gone)
    assert connects(me, other.address, 7001) is False
    everything = elements.of_link(Link("vm0", "vm1"), *ports[:2])
    host.change(add=everything)
    for source, destination in ((me.address, other.address), (me.address6, other.address6)):
        other.wire.heard()
        me.up(echo(source, destination, b"linked"), udp(source, destination, 9, 9, b"linked"))
        me.fence()
        assert len([frame for frame in other.wire.heard() if b"linked" in frame]) == 2


def test_names_are_asked_of_the_resolver_only(host, outside):
    (me,) = plugged(host, guest(0, Policy(Mode.NONE)), silent=False)
    for family, gateway in ((socket.AF_INET, GATEWAY), (socket.AF_INET6, GATEWAY6)):
        port = firewall.RESOLVER_PORT
        with (
            serving(host.here, family, socket.SOCK_DGRAM, gateway, port) as resolver,
            serving(host.here, family, socket.SOCK_STREAM, gateway, port),
            me.socket(family, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(2)
            client.sendto(b"question", (gateway, 53))
            question, peer = resolver.recvfrom(100)
            assert (question, peer[0]) == (
                b"question",
                me.address6 if family == socket.AF_INET6 else me.address,
            )
            resolver.sendto(b"answer", peer)
            answer, source = client.recvfrom(100)
            assert (answer, source[:2]) == (b"answer", (gateway, 53))
            assert connects(me, gateway, 53)
            assert connects(me, gateway, port) is False
            outer = OUTSIDE6 if family == socket.AF_INET6 else OUTSIDE
            assert connects(me, outer, 53) is False


def test_connections_are_limited(host, outside):
    port, free = guest(0, limits=Limits(connections=5)), guest(1)
    me, other = plugged(host, port, free)
    me.fence()  # its ping is one of them
    for source, destination, most in ((me.address, OUTSIDE, 4), (me.address6, OUTSIDE6, 5)):
        before = host.denied(me.port)
        packets = [udp(source, destination, 1_000 + n, 9, b"counted") for n in range(20)]
        # The kernel itself says no by ICMP a few times a second only (icmp_ratelimit).
        assert refused(me, *packets) > 0
        assert host.denied(me.port) == before + 20 - most
        assert refused(me, *packets[:3]) == 0  # what is open goes on
    assert passes(other, outside, udp(other.address, OUTSIDE, 9, 9, b"free"), b"free")
    host.change(
        remove=tuple(set(elements.of_guest(port)) - set(elements.of_guest(free))),
        add=elements.of_guest(replace(port, limits=Limits(connections=50))),
    )
    assert not refused(me, *(udp(me.address, OUTSIDE, 2_000 + n, 9, b"") for n in range(20)))


def test_fragments_meet_the_rules_as_the_packets_that_they_are_of(host, outside):
    egress = rules(EgressRule(True, protocol=Protocol.UDP, ports=(53, 53)))
    (me,) = plugged(host, guest(0, egress))

    def throw(port, mark, cut, ident):
        packet = udp(me.address, OUTSIDE, 9, port, mark * 100)
        return fragments(packet, cut, ident=ident)

    outside.wire.heard()
    me.up(*throw(53, b"lawful", 8, 1))
    me.fence()
    assert [frame for frame in outside.wire.heard() if b"lawful" in frame]
    for number, pieces in enumerate(
        (
            throw(54, b"unlawful", 8, 2),
            list(reversed(throw(54, b"unlawful", 16, 3))),
            # The port of a lawful piece, overwritten by a piece that overlaps it
            [*throw(53, b"unlawful", 64, 4)[:1], *throw(54, b"unlawful", 8, 4)],
            throw(54, b"unlawful", 64, 5)[1:],
        )
    ):
        me.up(*pieces)
        me.fence()
        assert not [f for f in outside.wire.heard() if b"unlawful" in f], number
