"""Multicast, broadcast and DHCP."""

import struct

from packets import BROADCAST, IGMP, checksum, group_mac, ipv4, mac_bytes, packed, udp

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    anybody,
    guests,
    outside,
    own_echo,
    own_udp,
    sport,
)


def group(address, port):
    """Send a datagram to a multicast group."""
    return Throw(
        lambda scene, me, mark: [
            me.up(udp(me.address, address, sport(mark), port, mark), to=group_mac(address))
        ],
        anybody,
    )


def routed(scene, me, mark):
    """Send a datagram to a group by way of the gateway."""
    yield me.up(udp(me.address, "239.1.2.3", sport(mark), 9, mark))


def broadcast(address, port=9, to=BROADCAST):
    """Send a datagram to everybody."""
    return Throw(
        lambda scene, me, mark: [
            me.up(udp(me.address, address, sport(mark), port, mark), to=to or me.gateway_mac)
        ],
        anybody,
    )


def igmp(kind, to):
    """Send an IGMPv2 message (RFC 2236)."""

    def frames(scene, me, mark):
        body = struct.pack("!BBH", kind, 0, 0) + packed(to)
        body = body[:2] + struct.pack("!H", checksum(body + mark)) + body[4:] + mark
        yield me.up(
            ipv4(me.address, to, IGMP, body, options=b"\x94\4\0\0", hops=1), to=group_mac(to)
        )

    return Throw(frames, anybody)


def dhcp(kind, operation, source, to, ports, mac=None, shows=anybody):
    """Send a DHCP message (RFC 2131) of a kind: 1 discover, 2 offer, 3 request, 5 acknowledge."""

    def frames(scene, me, mark):
        body = struct.pack("!BBBBIHH", operation, 1, 6, 0, 7, 0, 0x8000) + bytes(16)
        body += mac_bytes(me.mac).ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
        body += bytes([53, 1, kind]) + b"\xff" + mark
        of = source(me)
        yield me.up(udp(of, to(scene, me), *ports, body), to=mac(scene, me) if mac else BROADCAST)

    return Throw(frames, shows)


def everybody(scene, me):
    return "255.255.255.255"


def alice(scene, me):
    return scene.guests["alice"].address


def alice_mac(scene, me):
    return scene.guests["alice"].mac


def gateway(scene, me):
    return me.gateway


def gateway_mac(scene, me):
    return me.gateway_mac


def nobody(me):
    return "0.0.0.0"


def own(me):
    return me.address


CLIENT, SERVER = (68, 67), (67, 68)

ATTACKS = (
    Attack("dhcp discover", dhcp(1, 1, nobody, everybody, CLIENT), own_echo()),
    Attack("dhcp discover under one's own address", dhcp(1, 1, own, everybody, CLIENT), own_echo()),
    Attack(
        "dhcp request to the gateway", dhcp(3, 1, own, gateway, CLIENT, gateway_mac), own_echo()
    ),
    Attack("dhcp offer to everybody", dhcp(2, 2, own, everybody, SERVER), own_echo()),
    Attack(
        "dhcp offer as the gateway",
        dhcp(2, 2, lambda me: me.gateway, everybody, SERVER),
        own_echo(),
    ),
    Attack("dhcp answer to the sibling", dhcp(5, 2, own, alice, SERVER, alice_mac), own_echo()),
    Attack(
        "dhcp answer to the sibling through the gateway",
        dhcp(5, 2, own, alice, SERVER, gateway_mac, guests),
        own_echo(),
        told="mallory",
    ),
    Attack("mdns", group("224.0.0.251", 5353), own_udp()),
    Attack("ssdp", group("239.255.255.250", 1900), own_udp()),
    Attack("llmnr", group("224.0.0.252", 5355), own_udp()),
    Attack("ospf's group", group("224.0.0.5", 9), own_udp()),
    Attack("a group through the gateway", Throw(routed, outside), own_udp(), kernel=True),
    Attack("igmp report", igmp(0x16, "239.1.2.3"), own_echo()),
    Attack("igmp query", igmp(0x11, "224.0.0.1"), own_echo()),
    Attack("broadcast to the subnet", broadcast("172.31.255.255"), own_udp()),
    Attack("broadcast to everybody", broadcast("255.255.255.255"), own_udp()),
    Attack(
        "broadcast to the subnet through the gateway",
        broadcast("172.31.255.255", to=None),
        own_udp(),
    ),
    Attack("netbios name service", broadcast("172.31.255.255", 137), own_udp()),
    Attack("a frame to everybody with a packet for outside", broadcast("198.51.100.2"), own_udp()),
)
