"""Names: what a rule with a domain lets a guest reach, and nothing beside.

`named` and `namesake` may reach good.example, brief.example and all below pkg.example by TCP on
port 443, and all below trap.example. What these stand for is in `nameserver`.
"""

import asyncio
import socket

import dns.message
from packets import ESP, SYN, ip, tcp, udp

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    host,
    outside,
    own_echo,
    sport,
)
from tests.integration.netd.hostile.nameserver import ADDRESSES
from tests.integration.netd.hostile.scene import SECONDS

NEVER_GIVEN = "203.1.113.99"
GOOD, BRIEF = ADDRESSES["good.example"], ADDRESSES["brief.example"]
LONGEST_PIN = 7
"""Seconds after which the pin of brief.example is over, which is told for 5."""


async def resolve(scene, by, name):
    """Return the addresses that the guest is told for a name; none where it is refused."""
    guest, loop = scene.guests[by], asyncio.get_running_loop()
    with guest.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((scene.dns or guest.gateway, 53))
        async with asyncio.timeout(SECONDS):
            await loop.sock_sendall(client, dns.message.make_query(name, "A").to_wire())
            answer = dns.message.from_wire(await loop.sock_recv(client, 4096))
    return [record.to_text() for group in answer.answer for record in group]


async def reach(scene, by, address, port=443, protocol="tcp"):
    """Whether a connection of the guest to an address gets out."""
    make = (
        (lambda me, mark: tcp(me.address, address, sport(mark), port, SYN, mark))
        if protocol == "tcp"
        else (lambda me, mark: udp(me.address, address, sport(mark), port, mark))
    )
    return await Throw(lambda scene, me, mark: [me.up(make(me, mark))], outside, by)(scene)


def told(name, by="named"):
    """Ask for a name; it succeeded if an address came."""

    async def act(scene):
        return ADDRESSES[name] in await resolve(scene, by, name)

    return act


def told_and_reached(name, by="named"):
    """Ask for a name and go there; it succeeded if either was let."""

    async def act(scene):
        address = ADDRESSES[name]
        given = address in await resolve(scene, by, name)
        return await reach(scene, by, address) or given

    return act


def unasked(address, by="named", port=443, protocol="tcp"):
    """Go to an address without having asked for its name."""

    async def act(scene):
        return await reach(scene, by, address, port, protocol)

    return act


def pinned(port=443, protocol="tcp", by="named"):
    """Ask for good.example as `named`, and go there."""

    async def act(scene):
        assert GOOD in await resolve(scene, "named", "good.example")
        return await reach(scene, by, GOOD, port, protocol)

    return act


async def expired(scene):
    """Ask for brief.example, and go there until it is refused; it succeeded if it never is."""
    assert BRIEF in await resolve(scene, "named", "brief.example")
    assert await reach(scene, "named", BRIEF)
    try:
        async with asyncio.timeout(LONGEST_PIN):
            while await reach(scene, "named", BRIEF):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # no event tells of the end of a timeout
    except TimeoutError:
        return True
    return False


def query_as_named(scene, me, mark):
    """Ask for a name under another guest's address, so that it is given a pin."""
    body = dns.message.make_query("good.example", "A").to_wire() + mark
    yield me.up(udp(scene.guests["named"].address, me.gateway, sport(mark), 53, body))


def over_esp(scene, me, mark):
    yield me.up(ip(me.address, GOOD, ESP, mark))


ATTACKS = (
    Attack("names: an address that was never given", unasked(NEVER_GIVEN), pinned(), told="named"),
    Attack(
        "names: an address that was given to another",
        pinned(by="namesake"),
        pinned(),
        told="namesake",
    ),
    Attack("names: the address on another port", pinned(80), pinned(), told="named"),
    Attack("names: the address by another protocol", pinned(443, "udp"), pinned(), told="named"),
    Attack(
        "names: the address by esp",
        Throw(over_esp, outside, "named"),
        pinned(),
        told="named",
    ),
    Attack("names: an address whose time is over", expired, pinned(), told="named"),
    Attack(
        "names: a name that no rule allows", told_and_reached("other.example"), told("good.example")
    ),
    Attack(
        "names: a name below one that is allowed alone",
        told("www.good.example"),
        told("good.example"),
    ),
    Attack(
        "names: the name above those that are allowed",
        told("pkg.example"),
        told("deep.pkg.example"),
    ),
    Attack("names: a name that ends alike", told("notgood.example"), told("good.example")),
    Attack(
        "names: a name that begins alike", told("good.example.other.example"), told("good.example")
    ),
    Attack("names: any name, with policy none", told("good.example", "mute"), own_echo("mute")),
    Attack(
        "names: a query under another's address",
        Throw(query_as_named, host, "namesake"),
        told("good.example", "namesake"),
    ),
    *(
        Attack(
            f"rebinding: {name.split('.')[0]}", told_and_reached(name), told("plain.trap.example")
        )
        for name in ADDRESSES
        if name.endswith(".trap.example") and not name.startswith("plain.")
    ),
)
