"""IPv6 neighbour discovery (RFC 4861): to be a router, or another, or the gateway."""

import struct

from packets import (
    ALL_NODES,
    ALL_ROUTERS,
    FRAGMENT,
    ICMPV6,
    OVERRIDE,
    ROUTER,
    SOLICITED,
    icmp,
    ipv6,
    mac_bytes,
    neighbour,
    packed,
    solicited,
)

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    anybody,
    guests,
    own_echo6,
    own_solicitation,
    own_udp,
    own_udp6,
    sport,
)
from tests.integration.netd.hostile.attacks.ipv6 import (
    ANYONE,
    alice,
    gateway_local,
    local,
    off,
    throw,
    to_group,
)
from tests.integration.netd.hostile.scene import OUTSIDE6


def advertise_router(scene, me, mark):
    """Be a router (RFC 4861, 4.2), with a prefix for all."""
    prefix = bytes([3, 4, 64, 0xC0]) + struct.pack("!III", 1800, 1800, 0) + packed("2001:db8:bad::")
    rest = struct.pack("!BBH", 64, 0, 1800)
    return icmp(local(me), ALL_NODES, 134, 0, rest, bytes(8) + prefix + mark)


def advertise_router_to_one(scene, me, mark):
    packet = icmp(local(me), local(alice(scene)), 134, 0, b"\x40\0\x07\x08", bytes(8) + mark)
    yield me.up(packet, to=alice(scene).mac)


def solicit_router(scene, me, mark):
    return icmp(local(me), ALL_ROUTERS, 133, 0, payload=mark)


def redirect(scene, me, mark):
    """Lead the sibling's packets for outside to oneself (RFC 4861, 4.5), as the gateway."""
    body = packed(local(me)) + packed(OUTSIDE6) + mark
    packet = icmp(gateway_local(me), alice(scene).ipv6, 137, 0, payload=body)
    yield me.up(packet, to=alice(scene).mac)
    yield me.up(packet)


def redirect_host(scene, me, mark):
    body = packed(local(me)) + packed(OUTSIDE6) + mark
    return icmp(local(me), gateway_local(me), 137, 0, payload=body)


def probe_for_alices(scene, me, mark):
    """Detect a duplicate of the sibling's address (RFC 4862), so that it gives it up."""
    address = alice(scene).ipv6
    return neighbour(ANYONE, solicited(address), 135, address) + mark


def probe_from_alices(scene, me, mark):
    return neighbour(
        alice(scene).ipv6, solicited(me.port.ipv6_gateway), 135, me.port.ipv6_gateway, me.mac
    )


def advertise_alices(scene, me, mark):
    address = alice(scene).ipv6
    return neighbour(me.ipv6, me.port.ipv6_gateway, 136, address, me.mac, OVERRIDE | SOLICITED)


def advertise_alices_to_all(scene, me, mark):
    return neighbour(alice(scene).ipv6, ALL_NODES, 136, alice(scene).ipv6, me.mac, OVERRIDE)


def advertise_gateway(scene, me, mark):
    gateway = me.port.ipv6_gateway
    return neighbour(gateway, ALL_NODES, 136, gateway, me.mac, OVERRIDE | ROUTER)


def advertise_gateways_link_local(scene, me, mark):
    gateway = gateway_local(me)
    return neighbour(me.ipv6, ALL_NODES, 136, gateway, me.mac, OVERRIDE | ROUTER)


def advertise_at_alices_mac(scene, me, mark):
    return neighbour(me.ipv6, ALL_NODES, 136, me.ipv6, alice(scene).mac, OVERRIDE)


def fragmented_solicitation(scene, me, mark):
    """Hide a neighbour advertisement in fragments (RFC 6980)."""
    gateway = me.port.ipv6_gateway
    body = neighbour(me.ipv6, ALL_NODES, 136, gateway, me.mac, OVERRIDE)[40:] + mark
    for at, end, more in ((0, 16, 1), (16, len(body), 0)):
        head = struct.pack("!BBHI", ICMPV6, 0, at | more, sport(mark))
        packet = ipv6(me.ipv6, ALL_NODES, FRAGMENT, head + body[at:end], hops=255)
        yield to_group(me, packet)
        yield me.up(packet)


async def stolen6(scene, me, mark):
    """What the host sends to alice's IPv6 address reaches the thrower."""
    return await _reaches6(scene, alice(scene).ipv6, me)


async def burdened6(scene, me, mark):
    """What the host sends to the thrower's IPv6 address reaches alice."""
    return await _reaches6(scene, me.ipv6, alice(scene))


async def _reaches6(scene, address, hearer):
    words = scene.mark()
    scene.tell(address, words)
    await scene.fence()
    return bool(hearer.ear.with_(words))


async def heard_of_gateway(scene, me, mark):
    """A sibling heard an advertisement of the gateway from the thrower's MAC."""
    return any(
        frame[12:14] == b"\x86\xdd" and mac_bytes(me.mac) in frame[:12] + frame[54:]
        for frame in alice(scene).ear.with_(mac_bytes(me.mac))
    )


def own_advertisement():
    """Say where one's own address is, unasked."""

    async def delivered6(scene, me, mark):
        return await _reaches6(scene, me.ipv6, me)

    return throw(
        lambda scene, me, mark: neighbour(me.ipv6, ALL_NODES, 136, me.ipv6, me.mac, OVERRIDE),
        delivered6,
    )


ATTACKS = (
    Attack("ipv6 off: router advertisement", off(advertise_router), own_udp()),
    Attack(
        "ipv6 off: neighbour solicitation",
        off(
            lambda s, me, m: (
                neighbour(local(me), solicited(gateway_local(me)), 135, gateway_local(me), me.mac)
                + m
            )
        ),
        own_udp(),
    ),
    Attack("router advertisement", throw(advertise_router), own_solicitation()),
    Attack(
        "router advertisement to the sibling alone",
        Throw(advertise_router_to_one, anybody, "mallory6"),
        own_solicitation(),
    ),
    Attack("router solicitation", throw(solicit_router), own_solicitation()),
    Attack("icmpv6 redirect of the sibling", Throw(redirect, guests, "mallory6"), own_udp6()),
    Attack("icmpv6 redirect of the host", throw(redirect_host), own_echo6()),
    Attack("probe for the sibling's address", throw(probe_for_alices, guests), own_solicitation()),
    Attack(
        "solicitation from the sibling's address",
        throw(probe_from_alices, stolen6),
        own_solicitation(),
    ),
    Attack(
        "advertisement of the sibling's address",
        throw(advertise_alices, stolen6),
        own_advertisement(),
    ),
    Attack(
        "advertisement of the sibling's address to all",
        throw(advertise_alices_to_all, stolen6),
        own_advertisement(),
    ),
    Attack(
        "advertisement of the gateway's address",
        throw(advertise_gateway, heard_of_gateway),
        own_advertisement(),
    ),
    Attack(
        "advertisement of the gateway's link-local address",
        throw(advertise_gateways_link_local, heard_of_gateway),
        own_advertisement(),
    ),
    Attack(
        "advertisement with the sibling's mac",
        throw(advertise_at_alices_mac, burdened6),
        own_advertisement(),
    ),
    Attack(
        "neighbour discovery in fragments",
        Throw(fragmented_solicitation, guests, "mallory6"),
        own_solicitation(),
    ),
)
