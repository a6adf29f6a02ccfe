"""Whose ICMP errors reach whom, and neighbour discovery."""

import socket
from ipaddress import ip_address

import pytest
from inet_bench import QUICKLY, plugged, serving
from packets import (
    ICMP,
    icmp,
    icmp_body,
    ipv4,
    neighbour,
    udp,
)
from rules_bench import (
    GATEWAY6,
    OUTSIDE,
    OUTSIDE6,
    SECONDS,
    UPLINK,
    UPLINK6,
    Limits,
    guest,
)


def test_icmp_errors_of_a_guest_reach_its_own_connections_only(host, outside):
    me, other = plugged(host, guest(0), guest(1))
    me.up(udp(me.address, OUTSIDE, 9, 9, b"mine"))
    me.fence()
    mine = udp(OUTSIDE, me.address, 9, 9, b"mine")
    theirs = udp(OUTSIDE, other.address, 9, 9, b"mine")
    outside.wire.heard()
    for quoted, kind, arrives in ((mine, 3, True), (theirs, 3, False), (mine, 5, False)):
        body = icmp_body(kind, 1, bytes(4), quoted[:28])
        me.up(ipv4(me.address, OUTSIDE, ICMP, body))
        me.fence()
        errors = [f for f in outside.wire.heard() if f[23] == ICMP and f[34] in (3, 5)]
        assert bool(errors) == arrives, (kind, quoted)


@pytest.mark.parametrize("version", [4, 6])
def test_errors_of_others_connections_are_refused(host, outside, version):
    """Whoever knows another's ports could end its connection, were "related" all that is asked."""
    me, other = plugged(host, guest(0), guest(1), silent=False)
    family, away, near, names = {
        4: (socket.AF_INET, OUTSIDE, UPLINK, (me.address, other.address)),
        6: (socket.AF_INET6, OUTSIDE6, UPLINK6, (me.address6, other.address6)),
    }[version]
    unreachable = (3, 3) if version == 4 else (1, 4)
    log = host.log()

    def errors(seconds=QUICKLY):
        """Whether an error comes outside."""
        at = 34 if version == 4 else 54
        return outside.wire.until(lambda frame: frame[at : at + 2] == bytes(unreachable), seconds)

    with (
        serving(outside, family, socket.SOCK_DGRAM, away, 7000) as server,
        other.socket(family, socket.SOCK_DGRAM) as client,
        host.here.socket(family, socket.SOCK_DGRAM) as local,
    ):
        for opened, own in ((client, names[1]), (local, near)):
            opened.settimeout(2)
            opened.bind((own, 5555 if own != near else 6666))
            opened.connect((away, 7000))
            opened.send(b"one")
            server.sendto(b"two", server.recvfrom(9)[1])
            assert opened.recv(9) == b"two"
        for source, target, quoted in (
            (names[0], away, udp(away, names[1], 7000, 5555, b"two")),
            (names[0], near, udp(near, away, 6666, 7000, b"one")),
        ):
            me.up(icmp(source, target, *unreachable, payload=quoted))
            me.fence()
        assert not errors()
        local.send(b"three")
        local.send(b"four")
        assert [one.destination for one in log.told() if one.reason == "spoofed"] == [
            ip_address(away),
            ip_address(near),
        ]
        # Its own it may tell of.
        quoted = udp(away, names[1], 7000, 5555, b"two")
        other.up(icmp(names[1], away, *unreachable, payload=quoted))
        assert errors(SECONDS)


def test_neighbour_discovery_takes_no_connection(host):
    (me,) = plugged(host, guest(0, limits=Limits(connections=1)))
    for _ in range(5):
        me.up(neighbour(me.address6, GATEWAY6, 135, GATEWAY6, me.mac))
        assert me.wire.until(lambda f: f[12:14] == b"\x86\xdd" and f[54] == 136)
    assert host.denied(me.port) == 0
