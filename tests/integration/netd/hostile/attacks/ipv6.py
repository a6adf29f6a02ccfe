"""IPv6 where it is off, and where it is on: sources, extensions, groups, siblings, the host."""

import struct

from packets import (
    ALL_NODES,
    DESTINATION,
    HOP_BY_HOP,
    ICMPV6,
    ROUTING,
    UDP,
    echo,
    group_mac,
    icmp,
    icmpv6_body,
    ipv6,
    link_local,
    mac_bytes,
    packed,
    udp,
)

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    anybody,
    guests,
    host,
    outside,
    own_echo6,
    own_udp,
    own_udp6,
    sport,
)
from tests.integration.netd.hostile.scene import OUTSIDE6

ANYONE = "::"
"""The unspecified address."""


def local(me):
    return link_local(me.mac)


def gateway_local(me):
    return link_local(me.gateway_mac)


def to_group(me, packet):
    """Return the frame of a packet to the multicast address that it names."""
    return me.up(packet, to=group_mac(str(_address(packet[24:40]))))


def _address(data):
    return ":".join(data.hex()[at : at + 4] for at in range(0, 32, 4))


def throw(make, shows=anybody, by="mallory6"):
    """Throw the packet that `make` makes, to its multicast address or to the gateway."""

    def frames(scene, me, mark):
        packet = make(scene, me, mark)
        is_group = packet[24] == 0xFF
        yield to_group(me, packet) if is_group else me.up(packet)

    return Throw(frames, shows, by)


def alice(scene):
    return scene.guests["alice6"]


def _datagram(source, to, mark):
    return udp(source, to, sport(mark), 9, mark)


def source(of, to=lambda scene, me: OUTSIDE6, shows=outside):
    """Send a datagram from an address that is not one's own."""
    return throw(lambda scene, me, mark: _datagram(of(scene, me), to(scene, me), mark), shows)


def extension(kind, data, wrapped=None, protocol=UDP):
    """Send a datagram outside behind an extension header."""

    def make(scene, me, mark):
        body = (
            _datagram(me.ipv6, OUTSIDE6, mark)[40:] if wrapped is None else wrapped(scene, me, mark)
        )
        return ipv6(me.ipv6, OUTSIDE6, kind, bytes([protocol]) + data + body)

    return throw(make, outside)


def behind_hop_by_hop(scene, me, mark):
    """Report a group (RFC 3810) as Linux does, with a router alert."""
    body = icmpv6_body(
        local(me), "ff02::16", 143, 0, b"\0\0\0\1", b"\4\0\0\0" + packed("ff02::fb") + mark
    )
    return ipv6(
        local(me), "ff02::16", HOP_BY_HOP, bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0]) + body, hops=1
    )


def query_groups(scene, me, mark):
    body = icmpv6_body(local(me), ALL_NODES, 130, 0, bytes(4), bytes(16) + mark)
    return ipv6(
        local(me), ALL_NODES, HOP_BY_HOP, bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0]) + body, hops=1
    )


def dhcpv6(kind, to, ports):
    """Send a DHCPv6 message (RFC 8415): 1 solicit, 2 advertise."""

    def make(scene, me, mark):
        body = bytes([kind, 0, 0, 7, 0, 1, 0, 10, 0, 3, 0, 1]) + mac_bytes(me.mac) + mark
        return udp(local(me), to(scene), *ports, body)

    return throw(make)


def tunnel(scene, me, mark):
    """Hide a sibling's packet in another (RFC 2473)."""
    return ipv6(me.ipv6, OUTSIDE6, 41, _datagram(alice(scene).ipv6, OUTSIDE6, mark))


def to_sibling(scene, me, mark):
    yield me.up(_datagram(me.ipv6, alice(scene).ipv6, mark), to=alice(scene).mac)


def to_siblings_link_local(scene, me, mark):
    yield me.up(echo(local(me), local(alice(scene)), mark), to=alice(scene).mac)
    yield me.up(echo(local(me), local(alice(scene)), mark))


def to_gateways_port(scene, me, mark):
    return udp(me.ipv6, me.port.ipv6_gateway, sport(mark), 9, mark)


def to_gateways_local_port(scene, me, mark):
    return udp(local(me), gateway_local(me), sport(mark), 9, mark)


def forged_error(scene, me, mark):
    """Tell the host that the sibling's packets are too big (RFC 4443, 3.2), as a router outside."""
    quoted = _datagram(alice(scene).ipv6, OUTSIDE6, mark)
    return icmp(OUTSIDE6, alice(scene).ipv6, 2, 0, struct.pack("!I", 1280), quoted)


def node_information(scene, me, mark):
    """Ask for the host's name (RFC 4620)."""
    return icmp(me.ipv6, me.port.ipv6_gateway, 139, 0, payload=mark)


def off(make, shows=anybody):
    return throw(make, shows, "mallory")


ATTACKS = (
    Attack(
        "ipv6 off: to all nodes", off(lambda s, me, m: echo(local(me), ALL_NODES, m)), own_udp()
    ),
    Attack(
        "ipv6 off: ping of the gateway",
        off(lambda s, me, m: echo(local(me), gateway_local(me), m)),
        own_udp(),
    ),
    Attack(
        "ipv6 off: to the outside",
        off(lambda s, me, m: _datagram("fd6e:6578:7573::77", OUTSIDE6, m), outside),
        own_udp(),
    ),
    Attack("the sibling's ipv6 address", source(lambda s, me: alice(s).ipv6), own_udp6()),
    Attack("the gateway's ipv6 address", source(lambda s, me: me.port.ipv6_gateway), own_udp6()),
    Attack("an ipv6 address outside", source(lambda s, me: "2001:db8:77::1"), own_udp6()),
    Attack(
        "an ipv6 address that nobody leased",
        source(lambda s, me: "fd6e:6578:7573::beef"),
        own_udp6(),
    ),
    Attack(
        "the sibling's link-local address",
        source(lambda s, me: local(alice(s)), lambda s, me: gateway_local(me), host),
        own_echo6(),
    ),
    Attack("::1 as source", source(lambda s, me: "::1"), own_udp6(), kernel=True),
    Attack("no ipv6 address", source(lambda s, me: ANYONE), own_udp6(), kernel=True),
    Attack("an ipv4-mapped source", source(lambda s, me: "::ffff:10.66.0.2"), own_udp6()),
    Attack("hop-by-hop options", extension(HOP_BY_HOP, b"\0\1\4\0\0\0\0"), own_udp6()),
    Attack("hop-by-hop with a router alert", extension(HOP_BY_HOP, b"\0\5\2\0\0\1\0"), own_udp6()),
    Attack("destination options", extension(DESTINATION, b"\0\1\4\0\0\0\0"), own_udp6()),
    Attack(
        "routing header 0", extension(ROUTING, b"\2\0\1\0\0\0\0" + packed(OUTSIDE6)), own_udp6()
    ),
    Attack("segment routing", extension(ROUTING, b"\2\4\1\0\0\0\0" + packed(OUTSIDE6)), own_udp6()),
    Attack("ipv6 in ipv6", throw(tunnel, outside), own_udp6()),
    Attack("report of a group", throw(behind_hop_by_hop), own_udp6()),
    Attack("query for groups", throw(query_groups), own_udp6()),
    Attack("dhcpv6 solicit", dhcpv6(1, lambda s: "ff02::1:2", (546, 547)), own_udp6()),
    Attack("dhcpv6 advertise to all", dhcpv6(2, lambda s: ALL_NODES, (547, 546)), own_udp6()),
    Attack(
        "mdns by ipv6",
        throw(lambda s, me, m: udp(local(me), "ff02::fb", 5353, 5353, m)),
        own_udp6(),
    ),
    Attack("to all nodes", throw(lambda s, me, m: echo(me.ipv6, ALL_NODES, m)), own_echo6()),
    Attack(
        "to the sibling on the bridge by ipv6", Throw(to_sibling, guests, "mallory6"), own_echo6()
    ),
    Attack(
        "to the sibling through the gateway by ipv6",
        throw(lambda s, me, m: _datagram(me.ipv6, alice(s).ipv6, m), guests),
        own_echo6(),
        told="mallory6",
    ),
    Attack(
        "to the sibling's link-local address",
        Throw(to_siblings_link_local, guests, "mallory6"),
        own_echo6(),
    ),
    Attack(
        "a udp port of the gateway by ipv6",
        throw(to_gateways_port, host),
        own_echo6(),
        told="mallory6",
    ),
    Attack(
        "a udp port of the gateway's link-local address",
        throw(to_gateways_local_port, host),
        own_echo6(),
    ),
    Attack(
        "an error forged for the sibling's flow by ipv6", throw(forged_error, guests), own_echo6()
    ),
    Attack("node information query", throw(node_information, host), own_echo6()),
)
