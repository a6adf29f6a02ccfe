"""Fragments and frames that are not what they say.

`ruled` may send UDP to ports 4000 to 4009 of the outside's network, and TCP to 4000.
"""

from packets import (
    BROADCAST,
    IPV4,
    MORE,
    SYN,
    UDP,
    ether,
    fragments,
    fragments6,
    ipv4,
    mac_bytes,
    tcp,
    udp,
)

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
from tests.integration.netd.hostile.scene import OUTSIDE, OUTSIDE6


def datagram(me, mark, port, source=None):
    return udp(source or me.address, OUTSIDE, sport(mark), port, bytes(24) + mark.ljust(24))


def in_parts(port, *cuts):
    def frames(scene, me, mark):
        return map(me.up, fragments(datagram(me, mark, port), *cuts, ident=sport(mark)))

    return Throw(frames, outside, "ruled")


def in_parts6(port, *cuts):
    def frames(scene, me, mark):
        packet = udp(me.ipv6, OUTSIDE6, sport(mark), port, bytes(24) + mark.ljust(24))
        return map(me.up, fragments6(packet, *cuts, ident=sport(mark)))

    return Throw(frames, outside, "ruled6")


def backwards(scene, me, mark):
    """Send the fragment with the port last."""
    return map(me.up, reversed(fragments(datagram(me, mark, 5000), 8, 16, ident=sport(mark))))


def overlapping(scene, me, mark):
    """Begin as an allowed datagram, and write another port over it."""
    first, last = fragments(datagram(me, mark, 4000), 32, ident=sport(mark))
    body = datagram(me, mark, 5000)[20:]
    other = ipv4(me.address, OUTSIDE, UDP, body[:40], flags=MORE, ident=sport(mark))
    return map(me.up, (first, other, last))


def without_first(scene, me, mark):
    """Send what no port is known of."""
    return map(me.up, fragments(datagram(me, mark, 5000), 8, 32, ident=sport(mark))[1:])


def tiny_syn(scene, me, mark):
    """Cut a connection's first segment before its flags (RFC 1858)."""
    packet = tcp(me.address, OUTSIDE, sport(mark), 5000, SYN, bytes(12) + mark)
    return map(me.up, fragments(packet, 8, 32, ident=sport(mark)))


def from_alice(scene, me, mark):
    source = scene.guests["alice"].address
    return map(me.up, fragments(datagram(me, mark, 9, source), 8, 32, ident=sport(mark)))


def into_alices(scene, me, mark):
    """Put a fragment of one's own between a sibling's."""
    victim = scene.guests["alice"]
    first, last = fragments(datagram(victim, mark, 9), 32, ident=sport(mark))
    victim.throw(victim.up(first))
    yield me.up(last)


def too_long(scene, me, mark):
    """End beyond 65,535 bytes."""
    yield me.up(ipv4(me.address, OUTSIDE, UDP, bytes(800), flags=MORE, ident=sport(mark)))
    yield me.up(ipv4(me.address, OUTSIDE, UDP, mark.ljust(800), offset=65_528, ident=sport(mark)))


def wrong(**fields):
    """Send a datagram outside with a header that is wrong in one field."""

    def frames(scene, me, mark):
        body = udp(me.address, OUTSIDE, sport(mark), 9, mark)[20:]
        yield me.up(ipv4(me.address, OUTSIDE, UDP, body, **fields))

    return Throw(frames, outside)


def runt(scene, me, mark):
    yield (mac_bytes(BROADCAST) + mark)[:13]


def bare_header(scene, me, mark):
    yield ether(BROADCAST, me.mac, IPV4, b"")


def cut_header(scene, me, mark):
    yield ether(BROADCAST, me.mac, IPV4, udp(me.address, me.gateway, 1, 9, b"")[:7] + mark)


def jumbo(scene, me, mark):
    packet = udp(me.address, "255.255.255.255", sport(mark), 9, mark + bytes(9000))
    yield me.up(packet, to=BROADCAST)
    yield me.up(udp(me.address, scene.guests["alice"].address, sport(mark), 9, mark + bytes(9000)))


def version_6_as_4(scene, me, mark):
    packet = udp(me.address, OUTSIDE, sport(mark), 9, mark)
    yield ether(me.gateway_mac, me.mac, IPV4, b"\x65" + packet[1:])


async def any_frame(scene, me, mark):
    """Another guest heard a frame from the thrower."""
    return any(other.heard_from(me.mac) for other in scene.others(me))


ATTACKS = (
    Attack(
        "fragments of a forbidden datagram", in_parts(5000, 32), in_parts(4000, 32), told="ruled"
    ),
    Attack("a first fragment of 8 bytes", in_parts(5000, 8), in_parts(4000, 8), told="ruled"),
    Attack(
        "many tiny fragments",
        in_parts(5000, 8, 16, 24, 32),
        in_parts(4000, 8, 16, 24, 32),
        told="ruled",
    ),
    Attack(
        "the fragment with the port last",
        Throw(backwards, outside, "ruled"),
        in_parts(4000, 8),
        told="ruled",
    ),
    Attack(
        "fragments that overlap",
        Throw(overlapping, outside, "ruled"),
        in_parts(4000, 32),
        kernel=True,
    ),
    Attack(
        "fragments without a first",
        Throw(without_first, outside, "ruled"),
        in_parts(4000, 8, 32),
        kernel=True,
    ),
    Attack(
        "a first segment cut before its flags",
        Throw(tiny_syn, outside, "ruled"),
        in_parts(4000, 8),
        told="ruled",
    ),
    Attack(
        "ipv6 fragments of a forbidden datagram",
        in_parts6(4001, 32),
        in_parts6(4000, 32),
        told="ruled6",
    ),
    Attack(
        "a first ipv6 fragment of 8 bytes", in_parts6(4001, 8), in_parts6(4000, 8), told="ruled6"
    ),
    Attack("a lone ipv6 fragment", in_parts6(4001), in_parts6(4000), told="ruled6"),
    Attack("fragments from the sibling's address", Throw(from_alice, outside), in_parts(4000, 32)),
    Attack("a fragment among the sibling's", Throw(into_alices, outside), in_parts(4000, 32)),
    Attack(
        "fragments beyond the longest packet",
        Throw(too_long, outside),
        in_parts(4000, 32),
        kernel=True,
    ),
    Attack("a length beyond the frame", wrong(length=1400), own_udp(), kernel=True),
    Attack("a length below the header", wrong(length=12), own_udp(), kernel=True),
    Attack("a header of 8 bytes", wrong(words=2), own_udp(), kernel=True),
    Attack("a header longer than the packet", wrong(words=15), own_udp(), kernel=True),
    Attack("a bad checksum", wrong(wrong=1), own_udp(), kernel=True),
    Attack("no hops left", wrong(hops=0), own_udp(), kernel=True),
    Attack("a frame of 13 bytes", Throw(runt, anybody), own_echo(), kernel=True),
    Attack("a frame of nothing", Throw(bare_header, any_frame), own_echo()),
    Attack("half an ip header", Throw(cut_header, anybody), own_echo()),
    Attack("a frame of 9,000 bytes", Throw(jumbo, guests), own_echo()),
    Attack("ipv6 that says it is ipv4", Throw(version_6_as_4, outside), own_udp(), kernel=True),
)
