"""More than a guest's share: of tracked connections, of rates, of the host's memory.

`counted` and `counted6` may have CONNECTIONS connections, `slow` RATE packets a second, and `thin`
BYTES a second.
"""

import asyncio

import dns.message
from packets import ICMPV6, SYN, fragments, icmp, icmpv6_body, ipv6, link_local, tcp, udp

from tests.integration.netd.hostile.attack import (
    Attack,
    own_echo6,
    own_tcp,
    own_udp,
    own_udp6,
    sport,
)
from tests.integration.netd.hostile.attacks.names import resolve
from tests.integration.netd.hostile.scene import (
    CONNECTIONS,
    OUTSIDE,
    SECONDS,
    SILENT,
)

MANY = 3_000
NEIGHBOURS = 200  # a kernel has room for 1,024 (gc_thresh3)
IN_TIME = 5
"""Seconds in which a sibling is answered: then it asks again (resolv.conf(5))."""


def grows(frame, by="counted"):
    """Send MANY frames; it succeeded if the host tracks more for them than the guest may have."""

    async def act(scene):
        me, mark = scene.guests[by], scene.mark()
        before = scene.tracked()
        for number in range(MANY):
            me.throw(frame(scene, me, number, mark))
        await scene.fence()
        return scene.tracked() - before > CONNECTIONS + 1

    return act


def to_ports(scene, me, number, mark):
    return me.up(udp(me.address, OUTSIDE, 20_000, 1 + number, mark))


def to_addresses(scene, me, number, mark):
    return me.up(udp(me.address, f"203.0.{number >> 8}.{number & 255}", 20_001, 9, mark))


def connecting(scene, me, number, mark):
    return me.up(tcp(me.address, SILENT, 20_000 + number, 80, SYN))


def pinging(scene, me, number, mark):
    return me.up(icmp(me.address, me.gateway, 8, 0, number.to_bytes(2) + b"\0\1", mark))


def asking(scene, me, number, mark):
    return me.up(udp(me.address, scene.dns or me.gateway, 20_000 + number, 53, mark))


def asking_from_the_link(scene, me, number, mark):
    """Ask from the address that every link has by itself, which no port's limit names."""
    return me.up(udp(link_local(me.mac), me.port.ipv6_gateway, 20_000 + number, 53, mark))


def pinging_from_the_link(scene, me, number, mark):
    source, gateway = link_local(me.mac), me.port.ipv6_gateway
    body = icmpv6_body(source, gateway, 128, 0, number.to_bytes(2) + b"\0\1", mark)
    return me.up(ipv6(source, gateway, ICMPV6, body))


def refused(scene, me, number, mark):
    return me.up(udp(me.address, scene.guests["alice"].address, 20_002, 1 + number, mark))


def spoofing(scene, me, number, mark):
    return me.up(udp(f"172.20.{number >> 8}.{number & 255}", OUTSIDE, 20_003, 9, mark))


def out(by, size, most):
    """Send MANY datagrams outside at once; it succeeded if more than `most` arrived."""

    async def act(scene):
        me, mark = scene.guests[by], scene.mark()
        for _ in range(MANY):
            me.throw(me.up(udp(me.address, OUTSIDE, sport(mark), 9, mark.ljust(size))))
        await scene.fence()
        return len(scene.at_outside.with_(mark)) > most

    return act


def into(by, size, most):
    """Have MANY datagrams sent to a guest; it succeeded if more than `most` arrived."""

    async def act(scene):
        me, mark = scene.guests[by], scene.mark()
        for number in range(MANY):
            scene.tell(me.address, mark.ljust(size))
            if number % 50 == 0:
                me.ear.drain()  # what waits in its queue counts as what the sender may have waiting
        await scene.fence()
        return len(me.ear.with_(mark)) > most

    return act


def soon(act):
    """Repeat until it passes: a bucket that was emptied fills again."""

    async def twin(scene):
        async with asyncio.timeout(SECONDS):
            while not await act(scene):  # noqa: ASYNC110  # nothing tells of a token
                await asyncio.sleep(0.02)
        return True

    return twin


def hear_once(by):
    async def act(scene):
        mark = scene.mark()
        scene.tell(scene.guests[by].address, mark)
        await scene.fence()
        return bool(scene.guests[by].ear.with_(mark))

    return act


async def filling_neighbours(scene):
    """Look for so many addresses that nobody has that the host's table of neighbours grows."""
    me, mark = scene.guests["mallory"], scene.mark()
    before = scene.neighbours()
    for number in range(NEIGHBOURS):
        me.throw(me.up(udp(me.address, f"172.18.1.{number}", 20_006, 9, mark)))
    await scene.fence()
    return scene.neighbours() - before > NEIGHBOURS // 2


async def busy_resolver(scene):
    """Ask so much that a sibling is not answered in time."""
    me = scene.guests["mallory"]
    for number in range(MANY):
        query = dns.message.make_query(f"n{number}.other.example", "A").to_wire()
        me.throw(me.up(udp(me.address, scene.dns or me.gateway, 20_000 + number, 53, query)))
    try:
        async with asyncio.timeout(IN_TIME):
            return not await resolve(scene, "alice", "good.example")
    except TimeoutError:
        return True


async def resolved(scene):
    return bool(await resolve(scene, "mallory", "good.example"))


def exhausting_fragments(many, size):
    """Begin so many packets that the host has no room for a sibling's fragments (4 MiB, 30 s)."""

    async def act(scene):
        me, alice, mark = scene.guests["mallory"], scene.guests["alice"], scene.mark()
        for number in range(many):
            packet = udp(me.address, OUTSIDE, 20_004, 9, bytes(size))
            me.throw(me.up(fragments(packet, size, ident=number)[0]))
        packet = udp(alice.address, OUTSIDE, sport(mark), 9, bytes(24) + mark)
        for frame in fragments(packet, 16, ident=1):
            alice.throw(alice.up(frame))
        await scene.fence()
        return not scene.at_outside.with_(mark)

    return act


ATTACKS = (
    Attack("udp to 3,000 ports", grows(to_ports), own_udp(), told="counted"),
    Attack("udp to 3,000 addresses", grows(to_addresses), own_udp(), told="counted"),
    Attack("3,000 connections", grows(connecting), own_tcp(), told="counted"),
    Attack("3,000 pings", grows(pinging), own_udp(), told="counted"),
    Attack("3,000 queries", grows(asking), own_udp(), told="counted"),
    Attack(
        "3,000 queries from the link's own address",
        grows(asking_from_the_link, "counted6"),
        own_udp6(),
    ),
    Attack(
        "3,000 pings from the link's own address",
        grows(pinging_from_the_link, "counted6"),
        own_echo6(),
    ),
    Attack("3,000 refused datagrams", grows(refused, "mallory"), own_udp(), told="mallory"),
    Attack("3,000 forged sources", grows(spoofing, "mallory"), own_udp()),
    Attack("more packets than the rate", out("slow", 12, MANY // 2), soon(own_udp("slow"))),
    Attack(
        "more packets to the guest than the rate",
        into("slow", 12, MANY // 2),
        soon(hear_once("slow")),
    ),
    Attack("more bytes than the rate", out("thin", 1_000, MANY // 2), soon(own_udp("thin"))),
    Attack(
        "more bytes to the guest than the rate",
        into("thin", 1_000, MANY // 2),
        soon(hear_once("thin")),
    ),
    Attack("a table of neighbours that nobody is", filling_neighbours, own_udp()),
    Attack("queries that keep siblings waiting", busy_resolver, resolved, kernel=True),
    # Last: where these succeed, nobody's fragments are put together for half a minute.
    Attack(
        "fragments that fill the host's memory",
        exhausting_fragments(2 * MANY, 1_392),
        own_udp("alice"),
    ),
    Attack(
        "tiny fragments that fill the host's memory",
        exhausting_fragments(4 * MANY, 8),
        own_udp("alice"),
    ),
    Attack(
        "huge fragments that fill the host's memory",
        exhausting_fragments(200, 60_000),
        own_udp("alice"),
    ),
)
