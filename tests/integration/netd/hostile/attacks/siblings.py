"""Other guests: on the bridge, through the host, by their published ports, along links.

bob may open TCP connections to carol's port 9000, and nobody anything else.
"""

import asyncio
import socket
from contextlib import suppress

from packets import ACK, RST, SYN, echo, tcp, udp

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    guests,
    outside,
    own_echo,
    own_tcp,
    own_udp,
    sport,
)
from tests.integration.netd.hostile.scene import LINK_PORT, OUTSIDE, SECONDS, UPLINK

ALL, LOOPBACK = 8080, 8081
"""Ports of the host that lead to alice's port 8000: on all its addresses, and on 127.0.0.1."""
CUT_PORT = 9001
"""A port of carol's that a link to is made and taken away."""


def datagram(to, by="mallory"):
    """Send another guest a datagram through the gateway."""
    return Throw(
        lambda scene, me, mark: [
            me.up(udp(me.address, scene.guests[to].address, sport(mark), LINK_PORT, mark))
        ],
        guests,
        by,
    )


def segment(to, port=LINK_PORT, by="mallory", flags=SYN, source=None):
    """Send another guest a TCP segment through the gateway."""
    return Throw(
        lambda scene, me, mark: [
            me.up(
                tcp(me.address, scene.guests[to].address, source or sport(mark), port, flags, mark)
            )
        ],
        guests,
        by,
    )


def ping(to, by="mallory"):
    """Ping another guest through the gateway."""
    return Throw(
        lambda scene, me, mark: [me.up(echo(me.address, scene.guests[to].address, mark))],
        guests,
        by,
    )


def on_the_bridge(scene, me, mark):
    """Send the sibling frames that the host is not asked about."""
    victim = scene.guests["alice"]
    for packet in (
        echo(me.address, victim.address, mark),
        tcp(me.address, victim.address, sport(mark), 22, SYN, mark),
        udp(me.address, victim.address, sport(mark), 9, mark),
    ):
        yield me.up(packet, to=victim.mac)


def way_in(address, port):
    """Go to a published port from within."""

    def frames(scene, me, mark):
        to = me.gateway if address is None else address
        yield me.up(tcp(me.address, to, sport(mark), port, SYN, mark))

    return Throw(frames, guests)


def from_outside(address, port):
    """Send a datagram from outside to an address of a guest, or of the host."""

    async def act(scene):
        to, mark = address(scene) if callable(address) else address, scene.mark()
        with scene.outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(mark, (to, port))
            await scene.fence()
        return await guests(scene, scene.guests["mallory"], mark)

    return act


async def loopback_from_outside(scene):
    """Connect from outside to the port that is published on 127.0.0.1."""
    with scene.outside.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.connect_ex((UPLINK, LOOPBACK))
        await scene.fence()
    return bool(scene.guests["alice"].ear.with_((8000).to_bytes(2)))


async def published(scene):
    """Reach alice from outside by the port that is published on all addresses."""
    alice = scene.guests["alice"]
    async with alice.telling_peers(alice.address, 8000):
        return await scene.outside.talk(UPLINK, ALL) != ""


async def published_here(scene):
    """Reach alice from the host by the port that is published on 127.0.0.1."""
    alice = scene.guests["alice"]
    async with alice.telling_peers(alice.address, 8000):
        return await scene.here.talk("127.0.0.1", LOOPBACK) != ""


def along_the_link(then=None):
    """Open a connection from bob to carol; see whether words arrive on it after `then`."""

    async def act(scene):
        bob, carol = scene.guests["bob"], scene.guests["carol"]
        await scene.control.link(bob, carol, CUT_PORT)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SECONDS), carol.telling_peers(carol.address, CUT_PORT):
            with bob.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                await loop.sock_connect(client, (carol.address, CUT_PORT))
                if then:
                    await then(scene, bob, carol)
                mark = scene.mark()
                with suppress(ConnectionError):  # it is told so
                    await loop.sock_sendall(client, mark)
                bob.flush()
                await scene.fence()
                arrived = bool(carol.ear.with_(mark))
        await scene.control.unlink(bob, carol, CUT_PORT)
        return arrived

    return act


async def cut(scene, bob, carol):
    await scene.control.unlink(bob, carol, CUT_PORT)


def injected(frames, shows):
    """Forge a segment of a connection that alice has outside."""

    async def act(scene):
        alice, loop = scene.guests["alice"], asyncio.get_running_loop()
        async with scene.outside.telling_peers(OUTSIDE, 7001):
            with alice.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.bind((alice.address, 7777))
                async with asyncio.timeout(SECONDS):
                    await loop.sock_connect(client, (OUTSIDE, 7001))
                    await loop.sock_recv(client, 100)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return await Throw(frames, shows)(scene)

    return act


def reset_of_alice(scene, me, mark):
    alice = scene.guests["alice"]
    packet = tcp(OUTSIDE, alice.address, 7001, 7777, RST | ACK, mark)
    yield me.up(packet)
    yield me.up(packet, to=alice.mac)


def reset_of_outside(scene, me, mark):
    alice = scene.guests["alice"]
    packet = tcp(alice.address, OUTSIDE, 7777, 7001, RST | ACK, mark)
    yield me.up(packet)
    yield me.up(packet, alice.mac)


def alice(scene):
    return scene.guests["alice"].address


LINKED = segment("carol", by="bob")

ATTACKS = (
    Attack("to the sibling on the bridge", Throw(on_the_bridge, guests), own_echo()),
    Attack("udp to the sibling through the gateway", datagram("alice"), own_udp(), told="mallory"),
    Attack("tcp to the sibling through the gateway", segment("alice"), own_tcp(), told="mallory"),
    Attack("ping of the sibling through the gateway", ping("alice"), own_echo(), told="mallory"),
    Attack("mid-stream tcp to the sibling", segment("alice", flags=ACK), own_tcp(), told="mallory"),
    Attack(
        "an answer to the sibling that it did not ask for",
        segment("alice", flags=SYN | ACK),
        own_tcp(),
    ),
    Attack("udp to a guest of another network", datagram("alice6"), own_udp(), told="mallory"),
    Attack("tcp to a guest of another network", segment("alice6"), own_tcp(), told="mallory"),
    Attack(
        "the sibling's published port by the host's outside address", way_in(UPLINK, ALL), published
    ),
    Attack("the sibling's published port by the gateway", way_in(None, ALL), published),
    Attack("the sibling's published port by 127.0.0.1", way_in("127.0.0.1", ALL), published_here),
    Attack(
        "the port published on 127.0.0.1, from a guest",
        way_in("127.0.0.1", LOOPBACK),
        published_here,
    ),
    Attack(
        "the port published on 127.0.0.1, from outside",
        loopback_from_outside,
        published,
        kernel=True,
    ),
    Attack("from outside to a guest's address", from_outside(alice, 9), published),
    Attack(
        "a guest's port that is not published, from outside",
        from_outside(UPLINK, 8000),
        published,
        kernel=True,
    ),
    Attack("a link the wrong way round", segment("bob", by="carol"), LINKED, told="carol"),
    Attack(
        "a link the wrong way round, from its port",
        segment("bob", 80, "carol", source=LINK_PORT),
        LINKED,
        told="carol",
    ),
    Attack("a link on another port", segment("carol", LINK_PORT + 7, "bob"), LINKED, told="bob"),
    Attack("a link by another protocol", datagram("carol", "bob"), LINKED, told="bob"),
    Attack("a ping along a link of tcp", ping("carol", "bob"), LINKED, told="bob"),
    Attack("a link of somebody else", segment("carol"), LINKED, told="mallory"),
    Attack("a connection along a link that was deleted", along_the_link(cut), along_the_link()),
    Attack("a reset forged for the sibling", injected(reset_of_alice, guests), own_tcp()),
    Attack("a reset forged for the sibling's peer", injected(reset_of_outside, outside), own_tcp()),
)
