"""What the host's own addresses mean to guests and to others: ports, publications, translation."""

import os
import socket
from ipaddress import ip_address, ip_network

from inet_bench import connects, peer_of, plugged, refused, serving
from packets import (
    echo,
    ether,
    icmp,
    udp,
)
from rules_bench import (
    GATEWAY,
    GATEWAY6,
    OUTSIDE,
    OUTSIDE6,
    UPLINK,
    UPLINK6,
    guest,
)

from nexus_netd.model import (
    HostPort,
    NetworkSpec,
    Protocol,
    Publication,
)
from nexus_netd.rules import elements, firewall
from nexus_netd.subnet import Subnet


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
