"""ARP: to be another, or to be believed at all."""

import asyncio

from packets import ARP, BROADCAST, IPV6, NOWHERE, REPLY, REQUEST, arp, ether

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    anybody,
    burdened,
    delivered,
    guests,
    own_arp,
    stolen,
)
from tests.integration.netd.hostile.scene import OUTSIDE


def claim(operation, owner, shows, to=BROADCAST):
    """Say that the address of `owner` is at one's own MAC."""

    def frames(scene, me, mark):
        address = owner(scene, me)
        packet = arp(operation, me.mac, address, me.mac, address)
        yield ether(to if isinstance(to, str) else to(scene, me), me.mac, ARP, packet + mark)

    return Throw(frames, shows)


async def unasked(scene):
    """Answer the gateway, which asked nothing, in the sibling's name."""
    await asyncio.sleep(0.02)  # Linux believes a second answer from the next tick of its clock on
    victim = scene.guests["alice"].address

    def frames(scene, me, mark):
        packet = arp(REPLY, me.mac, victim, me.gateway_mac, me.gateway)
        yield ether(me.gateway_mac, me.mac, ARP, packet)

    return await Throw(frames, stolen("alice"))(scene)


def odd(**fields):
    """Send a request of one's own that is wrong in one field, to everybody."""
    operation = fields.pop("operation", REQUEST)

    def frames(scene, me, mark):
        packet = arp(operation, me.mac, me.address, NOWHERE, me.gateway, **fields)
        yield ether(BROADCAST, me.mac, ARP, packet + mark)

    return Throw(frames, guests)


def alice(scene, me):
    return scene.guests["alice"].address


def gateway(scene, me):
    return me.gateway


def own(scene, me):
    return me.address


def alice_mac(scene, me):
    return scene.guests["alice"].mac


def at_alices_mac(scene, me, mark):
    """Say that one's own address is at alice's MAC."""
    victim = scene.guests["alice"]
    packet = arp(REPLY, victim.mac, me.address, victim.mac, me.address)
    yield ether(BROADCAST, me.mac, ARP, packet + mark)


def in_alices_name(scene, me, mark):
    victim = scene.guests["alice"]
    packet = arp(REQUEST, victim.mac, victim.address, NOWHERE, me.gateway)
    yield ether(BROADCAST, me.mac, ARP, packet + mark)


def scan(scene, me, mark):
    packet = arp(REQUEST, me.mac, me.address, NOWHERE, scene.guests["alice"].address)
    yield ether(BROADCAST, me.mac, ARP, packet + mark)


def short(scene, me, mark):
    packet = arp(REQUEST, me.mac, me.address, NOWHERE, me.gateway)[:20]
    yield ether(BROADCAST, me.mac, ARP, packet + mark)[:46]


ATTACKS = (
    Attack(
        "arp request from the sibling's address", claim(REQUEST, alice, stolen("alice")), own_arp()
    ),
    Attack(
        "arp reply unasked from the sibling's address",
        unasked,
        own_arp(),
    ),
    Attack(
        "gratuitous arp for the sibling's address",
        claim(REPLY, alice, stolen("alice")),
        claim(REPLY, own, delivered),
    ),
    Attack(
        "gratuitous arp for the gateway's address",
        claim(REPLY, gateway, guests),
        claim(REPLY, own, delivered),
    ),
    Attack(
        "arp reply to the sibling from the gateway's address",
        claim(REPLY, gateway, guests, alice_mac),
        own_arp(),
    ),
    Attack(
        "arp for an address outside, as a proxy",
        claim(REPLY, lambda scene, me: OUTSIDE, guests),
        claim(REPLY, own, delivered),
    ),
    Attack(
        "arp for the broadcast address of everybody",
        claim(REPLY, lambda scene, me: "255.255.255.255", guests),
        own_arp(),
    ),
    Attack(
        "arp with the sibling's mac as sender",
        Throw(at_alices_mac, burdened("alice")),
        claim(REPLY, own, delivered),
    ),
    Attack(
        "arp with the sibling's mac and address in one's own frame",
        Throw(in_alices_name, guests),
        own_arp(),
    ),
    Attack("arp that looks for siblings", Throw(scan, guests), own_arp()),
    Attack("arp with a hardware length of 8", odd(sizes=(8, 4)), own_arp()),
    Attack("arp with a protocol length of 16", odd(sizes=(6, 16)), own_arp()),
    Attack("arp of another hardware type", odd(hardware=6), own_arp()),
    Attack("arp for ipv6", odd(protocol=IPV6), own_arp()),
    Attack("reverse arp", odd(operation=3), own_arp()),
    Attack("inverse arp", odd(operation=8), own_arp()),
    Attack("arp cut short", Throw(short, anybody), own_arp()),
)
