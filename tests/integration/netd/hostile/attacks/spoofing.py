"""IPv4 from addresses that are not the guest's, and IP options."""

from packets import UDP, ipv4, packed, udp

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
from tests.integration.netd.hostile.scene import ELSEWHERE, OUTSIDE, UPLINK


def source(address, shows=outside, to=OUTSIDE):
    """Send a datagram from an address that is not one's own."""

    def frames(scene, me, mark):
        of = address(scene, me) if callable(address) else address
        yield me.up(udp(of, to(scene, me) if callable(to) else to, sport(mark), 9, mark))

    return Throw(frames, shows)


def option(data, to=lambda scene, me: OUTSIDE):
    """Send a datagram with an IP option."""

    def frames(scene, me, mark):
        address = to(scene, me)
        body = udp(me.address, address, sport(mark), 9, mark)[20:]
        yield me.up(ipv4(me.address, address, UDP, body, options=data))

    return Throw(frames, outside)


def alice(scene, me):
    return scene.guests["alice"].address


def gateway(scene, me):
    return me.gateway


BY_OUTSIDE = b"\7\4" + packed(OUTSIDE) + b"\1"
EMPTY = b"\7\4" + bytes(4) + b"\1"

ATTACKS = (
    Attack("the sibling's address", source(alice), own_udp()),
    Attack("the sibling's address, to the host", source(alice, host, gateway), own_echo()),
    Attack("the sibling's address, to the sibling", source(alice, guests, alice), own_echo()),
    Attack("the gateway's address", source(gateway), own_udp(), kernel=True),
    Attack(
        "the gateway's address, to the sibling",
        source(gateway, guests, alice),
        own_udp(),
        kernel=True,
    ),
    Attack("the host's outside address", source(UPLINK), own_udp(), kernel=True),
    Attack("an address outside", source(ELSEWHERE), own_udp()),
    Attack("an address outside, to the sibling", source(OUTSIDE, guests, alice), own_udp()),
    Attack("an address outside, to the host", source(OUTSIDE, host, gateway), own_echo()),
    Attack("no address", source("0.0.0.0"), own_udp(), kernel=True),
    Attack("127.0.0.1", source("127.0.0.1"), own_udp(), kernel=True),
    Attack("127.0.0.1, to the host", source("127.0.0.1", host, gateway), own_echo(), kernel=True),
    Attack("broadcast as source", source("255.255.255.255"), own_udp(), kernel=True),
    Attack("multicast as source", source("224.0.0.1"), own_udp(), kernel=True),
    Attack("a link-local source", source("169.254.7.7"), own_udp()),
    Attack("an address that nobody leased", source("172.17.3.4"), own_udp()),
    Attack("an address of another network", source("10.66.0.2"), own_udp()),
    Attack("loose source route", option(b"\x83" + BY_OUTSIDE, gateway), own_udp()),
    Attack("strict source route", option(b"\x89" + BY_OUTSIDE, gateway), own_udp()),
    Attack("record route", option(b"\7" + EMPTY), own_udp()),
    Attack("timestamp option", option(b"\x44\x0c\5\0" + bytes(8)), own_udp()),
    Attack("router alert", option(b"\x94\4\0\0"), own_udp()),
    Attack(
        "an option longer than its header", option(b"\7\x3c\4" + bytes(5)), own_udp(), kernel=True
    ),
)
