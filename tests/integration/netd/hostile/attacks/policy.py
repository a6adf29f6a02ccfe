"""What a policy forbids: cloud metadata, other resolvers, everything, or all but what rules name.

`mute` may reach nothing. `ruled` may send UDP to ports 4000 to 4009 and TCP to 4000 of the
outside's network, but nothing to FORBIDDEN; anything to 192.0.2.0/24; and ask 169.254.169.123 for
the time. `ruled6` may send UDP to port 4000 of the outside's IPv6 network.
"""

from packets import ACK, ESP, GRE, SYN, echo, ip, tcp, udp

from tests.integration.netd.hostile.attack import (
    Attack,
    Throw,
    guests,
    outside,
    own_echo,
    own_echo6,
    own_tcp,
    own_udp,
    own_udp6,
    sport,
)
from tests.integration.netd.hostile.scene import ELSEWHERE, FORBIDDEN, OUTSIDE, OUTSIDE6

ALLOWED_PORT, ALLOWED_NET = 4000, "192.0.2.7"
OTHER_RESOLVER, OTHER_RESOLVER6 = "9.9.9.9", "2620:fe::fe"
CLOCK = "169.254.169.123"


def _own(me, to):
    return me.ipv6 if ":" in to else me.address


def segment(by, to, port, flags=SYN):
    """Send a TCP segment outside."""
    return Throw(
        lambda scene, me, mark: [me.up(tcp(_own(me, to), to, sport(mark), port, flags, mark))],
        outside,
        by,
    )


def datagram(by, to, port):
    """Send a datagram outside."""
    return Throw(
        lambda scene, me, mark: [me.up(udp(_own(me, to), to, sport(mark), port, mark))], outside, by
    )


def ping(by, to):
    """Ping an address outside."""
    return Throw(lambda scene, me, mark: [me.up(echo(_own(me, to), to, mark))], outside, by)


def other(by, to, protocol):
    """Send a packet of another protocol outside."""
    return Throw(lambda scene, me, mark: [me.up(ip(_own(me, to), to, protocol, mark))], outside, by)


def dns_of_sibling(scene, me, mark):
    yield me.up(udp(me.address, scene.guests["alice"].address, sport(mark), 53, mark))


async def arrived(scene, me, mark):
    """It was let out to a resolver, the host's or another."""
    return bool(scene.at_host.with_(mark) or scene.at_outside.with_(mark))


def own_query(by):
    """Ask the resolver that the guest was told."""
    return Throw(
        lambda scene, me, mark: [
            me.up(udp(me.address, scene.dns or me.gateway, sport(mark), 53, mark))
        ],
        arrived,
        by,
    )


OWN = own_udp("ruled", port=ALLOWED_PORT)
METADATA = {
    "aws, azure and gcp": "169.254.169.254",
    "ecs": "169.254.170.2",
    "alibaba": "100.100.100.200",
    "azure's wire server": "168.63.129.16",
    "any link-local address": "169.254.7.7",
}

ATTACKS = (
    *(
        Attack(f"metadata of {cloud}", segment("mallory", address, 80), own_tcp(), told="mallory")
        for cloud, address in METADATA.items()
    ),
    Attack(
        "metadata by udp", datagram("mallory", "169.254.169.254", 53), own_udp(), told="mallory"
    ),
    Attack("metadata by ping", ping("mallory", "169.254.169.254"), own_udp(), told="mallory"),
    Attack(
        "metadata mid-stream",
        segment("mallory", "169.254.169.254", 80, ACK),
        own_tcp(),
        told="mallory",
    ),
    Attack(
        "metadata by ipv6", segment("mallory6", "fd00:ec2::254", 80), own_udp6(), told="mallory6"
    ),
    Attack(
        "metadata of openstack by ipv6",
        segment("mallory6", "fe80::a9fe:a9fe", 80),
        own_udp6(),
        kernel=True,
    ),
    Attack(
        "metadata beside what a rule names",
        datagram("ruled", "169.254.169.254", 123),
        datagram("ruled", CLOCK, 123),
        told="ruled",
    ),
    Attack("policy none: tcp", segment("mute", OUTSIDE, 443), own_echo("mute"), told="mute"),
    Attack("policy none: udp", datagram("mute", OUTSIDE, 443), own_echo("mute"), told="mute"),
    Attack("policy none: ping", ping("mute", OUTSIDE), own_echo("mute"), told="mute"),
    Attack(
        "policy none: another resolver",
        datagram("mute", OTHER_RESOLVER, 53),
        own_echo("mute"),
        told="mute",
    ),
    Attack(
        "policy none: mid-stream tcp",
        segment("mute", OUTSIDE, 443, ACK),
        own_echo("mute"),
        told="mute",
    ),
    Attack("policy none: gre", other("mute", OUTSIDE, GRE), own_echo("mute"), told="mute"),
    Attack("policy none: ipv6", datagram("mute6", OUTSIDE6, 443), own_echo6("mute6"), told="mute6"),
    Attack(
        "rules: an address outside", datagram("ruled", ELSEWHERE, ALLOWED_PORT), OWN, told="ruled"
    ),
    Attack(
        "rules: the port below",
        datagram("ruled", OUTSIDE, 3999),
        datagram("ruled", OUTSIDE, 4000),
        told="ruled",
    ),
    Attack(
        "rules: the port above",
        datagram("ruled", OUTSIDE, 4010),
        datagram("ruled", OUTSIDE, 4009),
        told="ruled",
    ),
    Attack(
        "rules: another protocol",
        segment("ruled", OUTSIDE, 4001),
        segment("ruled", OUTSIDE, 4000),
        told="ruled",
    ),
    Attack(
        "rules: an address denied before", datagram("ruled", FORBIDDEN, 4000), OWN, told="ruled"
    ),
    Attack("rules: ping", ping("ruled", OUTSIDE), ping("ruled", ALLOWED_NET), told="ruled"),
    Attack(
        "rules: esp",
        other("ruled", OUTSIDE, ESP),
        other("ruled", ALLOWED_NET, ESP),
        told="ruled",
    ),
    Attack(
        "rules: gre", other("ruled", ELSEWHERE, GRE), other("ruled", ALLOWED_NET, GRE), told="ruled"
    ),
    Attack(
        "rules: mid-stream tcp",
        segment("ruled", OUTSIDE, 443, ACK),
        segment("ruled", OUTSIDE, 4000),
        told="ruled",
    ),
    Attack(
        "rules: an ipv6 port outside",
        datagram("ruled6", OUTSIDE6, 4001),
        datagram("ruled6", OUTSIDE6, 4000),
        told="ruled6",
    ),
    Attack(
        "rules: an ipv6 address outside",
        datagram("ruled6", "2001:db8:77::1", 4000),
        datagram("ruled6", OUTSIDE6, 4000),
        told="ruled6",
    ),
    Attack(
        "rules: ipv4 beside ipv6 rules",
        datagram("ruled6", OUTSIDE, 4000),
        datagram("ruled6", OUTSIDE6, 4000),
        told="ruled6",
    ),
    Attack(
        "another resolver by udp",
        datagram("ruled", OTHER_RESOLVER, 53),
        own_query("ruled"),
        told="ruled",
    ),
    Attack(
        "another resolver by tcp",
        segment("ruled", OTHER_RESOLVER, 53),
        own_query("ruled"),
        told="ruled",
    ),
    Attack(
        "another resolver by tls",
        segment("ruled", OTHER_RESOLVER, 853),
        own_query("ruled"),
        told="ruled",
    ),
    Attack(
        "another resolver by quic",
        datagram("ruled", OTHER_RESOLVER, 853),
        own_query("ruled"),
        told="ruled",
    ),
    Attack(
        "another resolver by https",
        segment("ruled", OTHER_RESOLVER, 443),
        own_query("ruled"),
        told="ruled",
    ),
    Attack(
        "another resolver by ipv6",
        datagram("ruled6", OTHER_RESOLVER6, 53),
        datagram("ruled6", OUTSIDE6, 4000),
        told="ruled6",
    ),
    Attack(
        "a resolver of the sibling's",
        Throw(dns_of_sibling, guests, "ruled"),
        own_query("ruled"),
        told="ruled",
    ),
)
