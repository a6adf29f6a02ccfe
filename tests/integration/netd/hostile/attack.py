"""What an attack is, and what would show that it succeeded."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from guests import Guest
from packets import (
    ARP,
    BROADCAST,
    NOWHERE,
    REQUEST,
    arp,
    echo,
    ether,
    is_refusal,
    neighbour,
    packed,
    tcp,
    udp,
)

from tests.integration.netd.hostile.scene import OUTSIDE, OUTSIDE6, Scene

Act = Callable[[Scene], Awaitable[bool]]
Evidence = Callable[[Scene, Guest, bytes], Awaitable[bool]]
Frames = Callable[[Scene, Guest, bytes], Iterable[bytes]]


@dataclass(frozen=True)
class Attack:
    """One attack: `act` does it and returns whether it succeeded, `twin` does the like lawfully.

    `told`: the attacker is told at once that it was refused. `kernel`: it may fail
    on a plain bridge too, because Linux itself refuses it.
    """

    name: str
    act: Act
    twin: Act
    told: str = ""
    kernel: bool = False


@dataclass(frozen=True)
class Throw:
    """Frames thrown by a guest, and what shows that they did what they were for.

    The frames are made from the scene, the thrower, and the mark that they are known by.
    """

    frames: Frames
    shows: Evidence
    by: str = "mallory"

    async def __call__(self, scene: Scene) -> bool:
        me, mark = scene.guests[self.by], scene.mark()
        with suppress(OSError):  # the TAP itself takes no such frame
            me.throw(*self.frames(scene, me, mark))
        await scene.fence()
        return await self.shows(scene, me, mark)


def was_told(scene: Scene, by: str) -> bool:
    """Whether the guest heard a refusal since the scene was cleared."""
    return any(map(is_refusal, scene.guests[by].ear.frames))


async def outside(scene, me, mark):
    """It was seen outside."""
    return bool(scene.at_outside.with_(mark))


async def host(scene, me, mark):
    """The host let it in."""
    return bool(scene.at_host.with_(mark))


async def guests(scene, me, mark):
    """Another guest heard it."""
    return any(other.ear.with_(mark) for other in scene.others(me))


async def anybody(scene, me, mark):
    """The host or another guest heard it."""
    return await host(scene, me, mark) or await guests(scene, me, mark)


async def answered(scene, me, mark):
    """It came back, as an echo does."""
    return bool(me.ear.with_(mark))


async def delivered(scene, me, mark):
    """What the host sends to the guest reaches it."""
    return await _reaches(scene, me.address, me)


def stolen(victim):
    """What the host sends to the victim reaches the thrower."""

    async def evidence(scene, me, mark):
        return await _reaches(scene, scene.guests[victim].address, me)

    return evidence


def burdened(victim):
    """What the host sends to the thrower reaches the victim."""

    async def evidence(scene, me, mark):
        return await _reaches(scene, me.address, scene.guests[victim])

    return evidence


async def _reaches(scene, address, hearer):
    words = scene.mark()
    scene.tell(address, words)
    await scene.fence()
    return bool(hearer.ear.with_(words))


async def gateway_answered(scene, me, mark):
    """The gateway answered an ARP request."""
    me.ear.drain()
    return any(
        frame[12:14] == b"\x08\x06"
        and frame[20:22] == b"\0\2"
        and frame[28:32] == packed(me.gateway)
        for frame in me.ear.frames
    )


async def gateway_advertised(scene, me, mark):
    """The gateway answered a neighbour solicitation."""
    me.ear.drain()
    gateway = packed(me.port.ipv6_gateway)
    return any(
        frame[12:14] == b"\x86\xdd" and frame[54] == 136 and frame[62:78] == gateway
        for frame in me.ear.frames
    )


def sport(mark):
    """Return a source port of this mark's own."""
    return 10_000 + int(mark[-6:])


def own_arp(by="mallory"):
    """Ask for the gateway in one's own name."""
    return Throw(
        lambda scene, me, mark: [
            ether(BROADCAST, me.mac, ARP, arp(REQUEST, me.mac, me.address, NOWHERE, me.gateway))
        ],
        gateway_answered,
        by,
    )


def own_udp(by="mallory", to=OUTSIDE, port=9):
    """Send a datagram outside under one's own address."""
    return Throw(
        lambda scene, me, mark: [
            me.up(udp(me.ipv6 if ":" in to else me.address, to, sport(mark), port, mark))
        ],
        outside,
        by,
    )


def own_tcp(by="mallory", to=OUTSIDE, port=80):
    """Ask for a connection outside under one's own address."""
    return Throw(
        lambda scene, me, mark: [
            me.up(tcp(me.ipv6 if ":" in to else me.address, to, sport(mark), port, 2, mark))
        ],
        outside,
        by,
    )


def own_echo(by="mallory"):
    """Ping the gateway."""
    return Throw(lambda scene, me, mark: [me.up(echo(me.address, me.gateway, mark))], answered, by)


def own_echo6(by="mallory6"):
    """Ping the gateway by IPv6."""
    return Throw(
        lambda scene, me, mark: [me.up(echo(me.ipv6, me.port.ipv6_gateway, mark))], answered, by
    )


def own_udp6(by="mallory6"):
    """Send a datagram outside under one's own IPv6 address."""
    return own_udp(by, OUTSIDE6)


def own_solicitation(by="mallory6"):
    """Ask for the gateway's MAC by IPv6."""
    return Throw(
        lambda scene, me, mark: [
            me.up(neighbour(me.ipv6, me.port.ipv6_gateway, 135, me.port.ipv6_gateway, me.mac))
        ],
        gateway_advertised,
        by,
    )
