"""The host: its services on every address, and what would change its mind."""

import asyncio
import struct

from packets import (
    ACK,
    FIN,
    GRE,
    ICMP,
    IPIP,
    RST,
    SCTP,
    SYN,
    echo,
    icmp,
    icmp_body,
    ip,
    ipv4,
    packed,
    tcp,
    udp,
)

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    guests,
    host,
    outside,
    own_echo,
    own_udp,
    sport,
)
from tests.integration.netd.hostile.scene import HOST_PORT, HOST_PORT6, LINK_PORT, OUTSIDE, UPLINK

RESOLVER_PORT = 7753
PSH, URG = 0x08, 0x20


def gateway(scene, me):
    return me.gateway


def uplink(scene, me):
    return UPLINK


def loopback(scene, me):
    return "127.0.0.1"


def other_gateway(scene, me):
    return scene.guests["alice6"].gateway


def segment(to, port, flags=SYN):
    """Send a TCP segment to the host."""
    return Throw(
        lambda scene, me, mark: [
            me.up(tcp(me.address, to(scene, me), sport(mark), port, flags, mark))
        ],
        host,
    )


def datagram(to, port):
    """Send a datagram to the host."""
    return Throw(
        lambda scene, me, mark: [me.up(udp(me.address, to(scene, me), sport(mark), port, mark))],
        host,
    )


def message(kind, code=0, rest=bytes(4), to=gateway, body=b""):
    """Send an ICMP message to the host."""
    return Throw(
        lambda scene, me, mark: [
            me.up(icmp(me.address, to(scene, me), kind, code, rest, body + mark))
        ],
        host,
    )


def ping(to):
    return Throw(lambda scene, me, mark: [me.up(echo(me.address, to(scene, me), mark))], host)


def other(protocol, inner=lambda scene, me, mark: mark):
    """Send the host a packet of another protocol."""
    return Throw(
        lambda scene, me, mark: [
            me.up(ip(me.address, me.gateway, protocol, inner(scene, me, mark)))
        ],
        host,
    )


def tunnelled(scene, me, mark):
    return udp(scene.guests["alice"].address, me.gateway, sport(mark), 9, mark)


def redirect_of_host(scene, me, mark):
    """Lead the host's packets for outside to oneself (RFC 792)."""
    quoted = udp(me.gateway, OUTSIDE, 6000, 9, mark)
    yield me.up(icmp(me.address, me.gateway, 5, 1, packed(me.address), quoted))


def redirect_of_sibling(scene, me, mark):
    """Lead the sibling's packets for outside to oneself, as the gateway and as oneself."""
    alice = scene.guests["alice"]
    quoted = udp(alice.address, OUTSIDE, 6000, 9, mark)
    for source in (me.gateway, me.address):
        packet = icmp(source, alice.address, 5, 1, packed(me.address), quoted)
        yield me.up(packet, to=alice.mac)
        yield me.up(packet)


async def redirected(scene, me, mark):
    """The gateway told the thrower of a shorter way, past itself."""
    me.ear.drain()
    return any(
        frame[12:14] == b"\x08\0" and frame[23] == ICMP and frame[34] == 5
        for frame in me.ear.frames
    )


async def past_the_gateway(scene):
    """Send the sibling a flow's second packet: Linux tells of no shorter way at a NAT's first."""
    port = 20_005

    def frames(scene, me, mark):
        yield me.up(udp(me.address, scene.guests["alice"].address, port, 9, mark))

    await Throw(frames, redirected, "named")(scene)
    await asyncio.sleep(0.1)  # it tells the same guest again after 40 ms
    return await Throw(frames, redirected, "named")(scene)


def error_for(flow, shows, kind=3, code=3, rest=bytes(4)):
    """Forge an ICMP error for a flow that others have; `flow` begins it and returns who is told."""

    async def act(scene):
        to, quoted = flow(scene)
        await scene.fence()

        def frames(scene, me, mark):
            head = icmp_body(kind, code, rest, quoted + mark)
            yield me.up(ipv4(me.address, to(me), ICMP, head))

        return await Throw(frames, shows)(scene)

    return act


def outwards(scene):
    """Alice sends a datagram outside; she is told that it did not arrive."""
    alice, mark = scene.guests["alice"], scene.mark()
    packet = udp(alice.address, OUTSIDE, sport(mark), 9, mark)
    alice.throw(alice.up(packet))
    return (lambda me: alice.address), packet[:28]


def inwards(scene):
    """Alice sends a datagram outside; its target is told that its answer did not arrive."""
    alice, mark = scene.guests["alice"], scene.mark()
    alice.throw(alice.up(udp(alice.address, OUTSIDE, sport(mark), 9, mark)))
    return (lambda me: OUTSIDE), udp(OUTSIDE, alice.address, 9, sport(mark), b"")[:28]


def along_the_link(scene):
    """bob sends carol a segment by their link; he is told that it did not arrive."""
    bob, carol, mark = scene.guests["bob"], scene.guests["carol"], scene.mark()
    packet = tcp(bob.address, carol.address, sport(mark), LINK_PORT, SYN, mark)
    bob.throw(bob.up(packet))
    return (lambda me: bob.address), packet[:28]


def of_the_host(scene):
    """The host sends alice a datagram; it is told that it did not arrive."""
    alice = scene.guests["alice"]
    scene.tell(alice.address, scene.mark())
    return (lambda me: me.gateway), udp(alice.gateway, alice.address, 6000, 9, b"")[:28]


ALLOWED = segment(gateway, HOST_PORT)
TOO_BIG = struct.pack("!HH", 0, 576)

ATTACKS = (
    Attack("ssh of the gateway", segment(gateway, 22), ALLOWED, told="mallory"),
    Attack("a udp port of the gateway", datagram(gateway, 9), ALLOWED, told="mallory"),
    Attack("the host port by udp", datagram(gateway, HOST_PORT), ALLOWED, told="mallory"),
    Attack(
        "another network's host port on one's own gateway",
        segment(gateway, HOST_PORT6),
        ALLOWED,
        told="mallory",
    ),
    Attack(
        "the host port on the outside address", segment(uplink, HOST_PORT), ALLOWED, told="mallory"
    ),
    Attack(
        "another network's host port on its gateway",
        segment(other_gateway, HOST_PORT6),
        ALLOWED,
        told="mallory",
    ),
    Attack("ssh of the host's outside address", segment(uplink, 22), ALLOWED, told="mallory"),
    Attack(
        "a udp port of the host's outside address", datagram(uplink, 9), ALLOWED, told="mallory"
    ),
    Attack("tcp to 127.0.0.1", segment(loopback, 22), ALLOWED),
    Attack("udp to 127.0.0.1", datagram(loopback, 9), ALLOWED),
    Attack("the metrics on 127.0.0.1", segment(loopback, 9464), ALLOWED),
    Attack("dns on 127.0.0.1", datagram(loopback, 53), ALLOWED),
    Attack("the host port on 127.0.0.1", segment(loopback, HOST_PORT), ALLOWED),
    Attack("dns of the host's outside address", datagram(uplink, 53), ALLOWED, told="mallory"),
    Attack(
        "the resolver's own port by udp", datagram(gateway, RESOLVER_PORT), ALLOWED, told="mallory"
    ),
    Attack(
        "the resolver's own port by tcp", segment(gateway, RESOLVER_PORT), ALLOWED, told="mallory"
    ),
    Attack("another network's gateway", segment(other_gateway, 22), ALLOWED, told="mallory"),
    Attack("ping of the host's outside address", ping(uplink), own_echo(), told="mallory"),
    Attack("mid-stream tcp to the host", segment(gateway, 22, ACK), ALLOWED),
    Attack(
        "an answer to the host that it did not ask for", segment(gateway, 22, SYN | ACK), ALLOWED
    ),
    Attack("a reset to the host", segment(gateway, 22, RST), ALLOWED),
    Attack("a null scan", segment(gateway, 22, 0), ALLOWED),
    Attack("a christmas tree", segment(gateway, HOST_PORT, FIN | PSH | URG), ALLOWED),
    Attack(
        "icmp timestamp request",
        message(13, rest=b"nx\0\1", body=bytes(12)),
        own_echo(),
        told="mallory",
    ),
    Attack("icmp address mask request", message(17), own_echo()),
    Attack("icmp router advertisement", message(9, rest=b"\1\2\7\x08", body=bytes(8)), own_echo()),
    Attack("an echo reply that nobody asked for", message(0, rest=b"no\0\1"), own_echo()),
    Attack("ipv4 in ipv4", other(IPIP, tunnelled), own_echo()),
    Attack("gre", other(GRE), own_echo()),
    Attack("sctp", other(SCTP), own_echo()),
    Attack("icmp redirect of the host", Throw(redirect_of_host, host), own_echo()),
    Attack("icmp redirect of the sibling", Throw(redirect_of_sibling, guests), own_udp()),
    Attack("to be redirected past the gateway", past_the_gateway, own_udp()),
    Attack("an error forged for the sibling's flow", error_for(outwards, guests), own_echo()),
    Attack(
        "a smaller mtu forged for the sibling's flow",
        error_for(outwards, guests, 3, 4, TOO_BIG),
        own_echo(),
    ),
    Attack("an error forged for the sibling's peer", error_for(inwards, outside), own_echo()),
    Attack(
        "a smaller mtu forged for the sibling's peer",
        error_for(inwards, outside, 3, 4, TOO_BIG),
        own_echo(),
    ),
    Attack("an error forged for a link's flow", error_for(along_the_link, guests), own_echo()),
    Attack(
        "an error forged for the host's flow to the sibling",
        error_for(of_the_host, host),
        own_echo(),
    ),
)
