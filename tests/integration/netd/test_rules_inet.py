"""What a guest's packets meet behind the bridge, by real packets."""

import os
import socket
import time
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from packets import (
    ICMP,
    SYN,
    echo,
    ether,
    fragments,
    icmp,
    icmp_body,
    ipv4,
    is_refusal,
    neighbour,
    tcp,
    udp,
)
from rules_bench import (
    GATEWAY,
    GATEWAY6,
    METADATA,
    OUTSIDE,
    OUTSIDE6,
    SECONDS,
    UPLINK,
    UPLINK6,
    Limits,
    bench,
    guest,
)

from nexus_netd.model import (
    EgressRule,
    HostPort,
    Link,
    Mode,
    NetworkSpec,
    Policy,
    Protocol,
    Publication,
)
from nexus_netd.rules import elements, firewall
from nexus_netd.subnet import Subnet

RULES = Mode.RULES
QUICKLY = 0.3
"""Seconds without a packet that count as none; one takes well under a millisecond."""


@pytest.fixture(params=[False, True], ids=["", "br_netfilter"])
def host(namespace, request):
    with bench(namespace, request.param) as made:
        yield made


@pytest.fixture
def outside(host):
    return host.outside()


def plugged(host, *ports, more=(), silent=True):
    host.rules(*ports, more=more)
    return [host.plug(port, silent) for port in ports]


def refused(me, *packets):
    """Send packets; return how many refusals came back."""
    me.wire.heard()
    me.up(*packets)
    return len([frame for frame in me.fence() if is_refusal(frame)])


def passes(me, outside, packet, mark):
    """Send a packet; whether it came outside."""
    outside.wire.heard()
    me.up(packet)
    me.fence()
    return any(mark in frame for frame in outside.wire.heard())


def rules(*these):
    return Policy(RULES, these)


@contextmanager
def serving(stack, family, kind, address, port):
    """A socket that listens."""
    opened = stack.socket(family, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((address, port))
    opened.settimeout(QUICKLY * 10)
    if kind == socket.SOCK_STREAM:
        opened.listen()
    with opened:
        yield opened


def peer_of(server):
    """Return the address that the next client is seen under."""
    client, peer = server.accept()
    client.close()
    return peer[0]


def connects(stack, address, port, seconds=2):
    """Whether TCP connects; None where it is not refused but silent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with stack.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect((address, port))
        except TimeoutError:
            return None
        except OSError:
            return False
        return True


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


def test_sources_are_translated_and_answers_come_back(host, outside):
    (me,) = plugged(host, guest(0), silent=False)
    for family, address, seen in (
        (socket.AF_INET, OUTSIDE, UPLINK),
        (socket.AF_INET6, OUTSIDE6, UPLINK6),
    ):
        with serving(outside, family, socket.SOCK_STREAM, address, 7000) as server:
            assert connects(me, address, 7000)
            assert peer_of(server) == seen
    # What comes from outside and is no answer does not.
    outside.ip("route add 172.16.0.0/12 via 198.51.100.1")
    outside.ip("route add fd6e::/64 via 2001:db8::1")
    for address in (me.address, me.address6):
        assert connects(outside, address, 7001) is False


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
    host.change(add=(pin(OUTSIDE, 1, 0.2),))
    assert reach(port=10)
    deadline = time.monotonic() + 5
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


def test_the_host_is_closed_but_for_host_ports(host, outside):
    (me,) = plugged(host, guest(0), silent=False)
    for family, gateway, uplink in (
        (socket.AF_INET, GATEWAY, UPLINK),
        (socket.AF_INET6, GATEWAY6, UPLINK6),
    ):
        anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
        with (
            serving(host.here, family, socket.SOCK_STREAM, anywhere, 8080),
            serving(host.here, family, socket.SOCK_STREAM, anywhere, 8081),
        ):
            assert connects(me, gateway, 8080)
            assert connects(me, gateway, 8081) is False
            assert connects(me, uplink, 8080) is False
            assert connects(outside, uplink, 8080)
            assert connects(outside, uplink, 8081)
    assert refused(me, echo(me.address, UPLINK, b"")) == 1
    assert refused(me, icmp(me.address, GATEWAY, 13, 0)) == 1  # a timestamp


def test_publications(host, outside):
    port, other = guest(0), guest(1)
    wanted = [
        Publication("vm0", ip_address(address), number, 7000, Protocol.TCP)
        for address, number in (
            ("127.0.0.1", 9001),
            (UPLINK, 9002),
            ("0.0.0.0", 9003),
            (UPLINK6, 9002),
            ("::", 9003),
        )
    ]
    more = [element for one in wanted for element in elements.of_publication(one, port)]
    me, second = plugged(host, port, other, more=more, silent=False)
    here = host.here
    with (
        serving(me, socket.AF_INET, socket.SOCK_STREAM, me.address, 7000) as server,
        serving(me, socket.AF_INET6, socket.SOCK_STREAM, me.address6, 7000),
    ):
        assert connects(here, "127.0.0.1", 9001)
        assert peer_of(server) == GATEWAY
        assert connects(outside, UPLINK, 9002)
        assert peer_of(server) == OUTSIDE
        assert connects(here, UPLINK, 9002)
        for address in ("127.0.0.1", UPLINK, GATEWAY):
            assert connects(here, address, 9003), address
        assert connects(outside, UPLINK, 9003)
        assert connects(outside, UPLINK, 9001) is False
        for stack, address, number in (
            (outside, UPLINK6, 9002),
            (here, UPLINK6, 9002),
            (outside, UPLINK6, 9003),
        ):
            assert connects(stack, address, number), (address, number)
        assert connects(here, "::1", 9003) is False
        # Guests go by links, and not by what is published.
        for address in (UPLINK, GATEWAY, UPLINK6, GATEWAY6):
            for number in (9001, 9002, 9003):
                assert connects(second, address, number) is False, address
                assert connects(me, address, number) is False, address


def test_what_is_published_on_loopback_is_not_reached_from_the_wire(host, outside):
    port = guest(0)
    one = Publication("vm0", ip_address("127.0.0.1"), 9001, 7000, Protocol.UDP)
    (me,) = plugged(host, port, more=elements.of_publication(one, port))
    with outside.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        mac = host.mac_of("uplink")
        source = "02:00:00:00:00:01"
        raw.send(ether(mac, source, 0x0800, udp(OUTSIDE, "127.0.0.1", 9, 9001, b"intruder")))
        raw.send(ether(mac, source, 0x0800, udp(OUTSIDE, me.address, 9, 7000, b"intruder")))
    me.fence()
    assert not [frame for frame in me.wire.heard() if b"intruder" in frame]
    with host.here.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
        local.sendto(b"resident", ("127.0.0.1", 9001))
    assert me.wire.until(lambda frame: b"resident" in frame)


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


def test_icmp_errors_of_a_guest_reach_its_own_connections_only(host, outside):
    me, other = plugged(host, guest(0), guest(1))
    me.up(udp(me.address, OUTSIDE, 9, 9, b"mine"))
    me.fence()
    mine = udp(OUTSIDE, me.address, 9, 9, b"mine")
    theirs = udp(OUTSIDE, other.address, 9, 9, b"mine")
    outside.wire.heard()
    for quoted, kind, arrives in ((mine, 3, True), (theirs, 3, False), (mine, 5, False)):
        body = icmp_body(kind, 1, bytes(4), quoted[:28])
        me.up(ipv4(me.address, OUTSIDE, ICMP, body))
        me.fence()
        errors = [f for f in outside.wire.heard() if f[23] == ICMP and f[34] in (3, 5)]
        assert bool(errors) == arrives, (kind, quoted)


@pytest.mark.parametrize("version", [4, 6])
def test_errors_of_others_connections_are_refused(host, outside, version):
    """Whoever knows another's ports could end its connection, were "related" all that is asked."""
    me, other = plugged(host, guest(0), guest(1), silent=False)
    family, away, near, names = {
        4: (socket.AF_INET, OUTSIDE, UPLINK, (me.address, other.address)),
        6: (socket.AF_INET6, OUTSIDE6, UPLINK6, (me.address6, other.address6)),
    }[version]
    unreachable = (3, 3) if version == 4 else (1, 4)
    log = host.log()

    def errors(seconds=QUICKLY):
        """Whether an error comes outside."""
        at = 34 if version == 4 else 54
        return outside.wire.until(lambda frame: frame[at : at + 2] == bytes(unreachable), seconds)

    with (
        serving(outside, family, socket.SOCK_DGRAM, away, 7000) as server,
        other.socket(family, socket.SOCK_DGRAM) as client,
        host.here.socket(family, socket.SOCK_DGRAM) as local,
    ):
        for opened, own in ((client, names[1]), (local, near)):
            opened.settimeout(2)
            opened.bind((own, 5555 if own != near else 6666))
            opened.connect((away, 7000))
            opened.send(b"one")
            server.sendto(b"two", server.recvfrom(9)[1])
            assert opened.recv(9) == b"two"
        for source, target, quoted in (
            (names[0], away, udp(away, names[1], 7000, 5555, b"two")),
            (names[0], near, udp(near, away, 6666, 7000, b"one")),
        ):
            me.up(icmp(source, target, *unreachable, payload=quoted))
            me.fence()
        assert not errors()
        local.send(b"three")
        local.send(b"four")
        assert [one.destination for one in log.told() if one.reason == "spoofed"] == [
            ip_address(away),
            ip_address(near),
        ]
        # Its own it may tell of.
        quoted = udp(away, names[1], 7000, 5555, b"two")
        other.up(icmp(names[1], away, *unreachable, payload=quoted))
        assert errors(SECONDS)


def test_a_gateway_serves_its_own_network(host):
    """Another network's gateway is an address of the host like any other."""
    second, second6 = "10.66.0.1", "fd77::1"
    spec = NetworkSpec(
        "other",
        "nexbr1",
        Subnet.parse("10.66.0.0/16"),
        ip_network("fd77::/64"),
        host_ports=(HostPort(Protocol.TCP, 8081),),
    )
    (me,) = plugged(host, guest(0), more=elements.of_network(spec, ["nexbr1"]), silent=False)
    host.here.ip("link add nexbr1 type bridge")
    host.here.ip("link set nexbr1 up")
    host.here.ip(f"addr add {second}/32 dev nexbr1")
    host.here.ip(f"addr add {second6}/128 dev nexbr1 nodad")
    for family, address in ((socket.AF_INET, second), (socket.AF_INET6, second6)):
        with (
            serving(host.here, family, socket.SOCK_STREAM, address, 8081),
            serving(host.here, family, socket.SOCK_STREAM, address, firewall.RESOLVER_PORT),
        ):
            for port in (53, 8081, firewall.RESOLVER_PORT):
                assert connects(me, address, port) is False
        source = me.address6 if family == socket.AF_INET6 else me.address
        assert refused(me, echo(source, address, b"")) == 1


def test_others_are_forwarded_and_served_as_before(host, outside):
    """A network of somebody else's, forwarded by this host, such as Docker's or libvirt's."""
    plugged(host, guest(0))
    foreign = host.namespace()
    far = f"/proc/{os.getpid()}/fd/{foreign.descriptor}"
    host.here.ip(f"link add nexusvpn type veth peer name eth0 netns {far}")
    host.here.ip("addr add 192.0.2.1/24 dev nexusvpn")
    host.here.ip("link set nexusvpn up")
    foreign.ip("addr add 192.0.2.2/24 dev eth0")
    foreign.ip("link set eth0 up")
    foreign.ip("route add default via 192.0.2.1")
    outside.ip(f"route add 192.0.2.0/24 via {UPLINK}")
    with (
        serving(outside, socket.AF_INET, socket.SOCK_STREAM, OUTSIDE, 7000) as server,
        serving(foreign, socket.AF_INET, socket.SOCK_STREAM, "192.0.2.2", 7000),
        serving(host.here, socket.AF_INET, socket.SOCK_STREAM, "192.0.2.1", 53),
    ):
        assert connects(foreign, OUTSIDE, 7000)
        assert peer_of(server) == "192.0.2.2"
        assert connects(outside, "192.0.2.2", 7000)
        assert connects(foreign, "192.0.2.1", 53)


def test_neighbour_discovery_takes_no_connection(host):
    (me,) = plugged(host, guest(0, limits=Limits(connections=1)))
    for _ in range(5):
        me.up(neighbour(me.address6, GATEWAY6, 135, GATEWAY6, me.mac))
        assert me.wire.until(lambda f: f[12:14] == b"\x86\xdd" and f[54] == 136)
    assert host.denied(me.port) == 0
