"""The table "bridge nexus": what frames a guest may send, and at which rates.

It fails closed: what comes from an interface that is called as our TAPs are, and is not let through
by a rule, is dropped.
"""

from __future__ import annotations

from nexus_netd.rules import reasons
from nexus_netd.rules.expressions import (
    ACCEPT,
    DROP,
    IIFNAME,
    IP4,
    IP6,
    OIFNAME,
    TCP,
    UDP,
    among,
    any_bit,
    between,
    differs,
    equals,
    goto,
    jump,
    link,
    log,
    mapped,
    network,
    rule,
    tap,
)
from nexus_netd.rules.expressions import Expressions as Match
from nexus_netd.rules.ruleset import Chain, Rule, Set

# linux/netfilter_bridge.h
_PREROUTING, _INPUT, _FORWARD, _POSTROUTING = 0, 1, 2, 4
_EARLY = -300

HOOKS = (
    Chain("guard", "filter", _PREROUTING, _EARLY),
    Chain("reserved", "filter", _INPUT, _EARLY),
    Chain("between", "filter", _FORWARD, _EARLY),
    Chain("shape", "filter", _POSTROUTING, _EARLY),
)

SETS = (
    Set("gateways_ether", ("ether",)),
    Set("guests4", ("ifname", "ether", "ip4")),
    Set("guests6", ("ifname", "ether", "ip6")),
    Set("egress_bytes", ("ifname",)),
    Set("egress_packets", ("ifname",)),
    Set("ingress_bytes", ("ifname",)),
    Set("ingress_packets", ("ifname",)),
    Set("pieces_bytes", ("ifname",)),
    Set("pieces_packets", ("ifname",)),
    Set("denials", ("ifname",), ("ip4",)),
    Set("events", ("ifname",)),
)

# By what was on the wire: a VLAN's tag is the type, though the kernel has taken it off.
_ETHER_FROM, _ETHER_TYPE = link(6, 6), link(12, 2)
_TO_GATEWAY = among("gateways_ether", link(0, 6))
_TO_RESERVED = equals(link(0, 5), bytes.fromhex("0180c20000"))  # IEEE 802.1D, 7.12.6
_TO_SOLICITED = equals(link(0, 3), bytes.fromhex("3333ff"))  # RFC 4291, 2.7.1

# ARP (RFC 826)
_ARP_FOR_IPV4 = equals(network(0, 6), bytes.fromhex("000108000604"))
_ARP_QUESTION_OR_ANSWER = between(network(6, 2), b"\0\1", b"\0\2")
_ARP_ETHER, _ARP_ADDRESS = network(8, 6), network(14, 4)

# IPv4 (RFC 791): of version 4, and with a header of 20 bytes, which has no room for options
_PLAIN4 = equals(network(0, 1), b"\x45")
_PIECE4 = any_bit(network(6, 2), b"\x3f\xff")  # more fragments, or an offset
_NOT_TO_LOOPBACK4 = differs(network(16, 1), b"\x7f")
_TO_UNICAST4 = between(IP4.destination, b"\1\0\0\0", b"\xdf\xff\xff\xff")

# IPv6 (RFC 8200) and its neighbour discovery (RFC 4861), as far as no extension header is in it
_LENGTH6, _NEXT6, _INNER6, _ICMP6_TYPE = (
    network(4, 2),
    network(6, 1),
    network(40, 1),
    network(40, 1),
)
_FROM_NOBODY6 = equals(IP6.source, bytes(16))
_FROM_LINK6 = between(IP6.source, b"\xfe\x80" + bytes(14), b"\xfe\xbf" + b"\xff" * 14)
_TO_UNICAST6 = between(IP6.destination, bytes(16), b"\xfe" + b"\xff" * 15)
_ND_TARGET, _ND_OPTION, _ND_ETHER = network(48, 16), network(64, 2), network(66, 6)
_PIECE6 = equals(_NEXT6, b"\x2c")
_GROUPS = equals(_NEXT6, b"\x00")  # hop-by-hop options: multicast listener reports (RFC 3810)


def _icmp6(first: int, last: int) -> Match:
    """Match ICMPv6 (RFC 4443) of these types."""
    return (*equals(_NEXT6, IP6.icmp), *between(_ICMP6_TYPE, bytes([first]), bytes([last])))


_ROUTER_SOLICIT, _SOLICIT, _ADVERTISE = _icmp6(133, 133), _icmp6(135, 135), _icmp6(136, 136)

_OWN_IPV4 = among("guests4", IIFNAME, _ETHER_FROM, IP4.source)
_OWN_ARP = among("guests4", IIFNAME, _ETHER_FROM, _ARP_ADDRESS)
_OWN_ARP_ETHER = among("guests4", IIFNAME, _ARP_ETHER, _ARP_ADDRESS)
_OWN_IPV6 = among("guests6", IIFNAME, _ETHER_FROM, IP6.source)
_OWN_TARGET = among("guests6", IIFNAME, _ETHER_FROM, _ND_TARGET)
_OWN_ND_ETHER = among("guests6", IIFNAME, _ND_ETHER, IP6.source)


def _pieces(chain: str, match: Match) -> tuple[Rule, ...]:
    """Let no guest fill the memory where the host keeps pieces until it has all of a packet.

    It is 4 MiB for all by default (ip-sysctl: ipfrag_high_thresh), and a piece may wait for 30 s
    (ipfrag_time), or 60 s in IPv6 (nf_conntrack_frag6_timeout).
    """
    return tuple(
        rule(chain, f"{unit} of pieces a second", match, among(name, IIFNAME), goto("hush"))
        for unit, name in (("bytes", "pieces_bytes"), ("packets", "pieces_packets"))
    )


def _refusal(reason: str) -> tuple[Rule, ...]:
    """Return the chain that drops; telling of it is a rule apart, for a limit may end it."""
    chain = f"refuse-{reason}"
    told = log(reasons.NFLOG_GROUP, reasons.PREFIX + reason)
    return (
        rule(chain, "counted", jump("count")),
        rule(chain, "told", among("events", IIFNAME), told),
        rule(chain, "dropped", DROP),
    )


RULES: tuple[Rule, ...] = (
    rule("guard", "frames of guests", tap(IIFNAME), goto("frame")),
    rule("frame", "bytes a second", among("egress_bytes", IIFNAME), DROP),
    rule("frame", "packets a second", among("egress_packets", IIFNAME), DROP),
    rule("frame", "IPv4", equals(_ETHER_TYPE, b"\x08\x00"), goto("frame-ip4")),
    rule("frame", "ARP", equals(_ETHER_TYPE, b"\x08\x06"), goto("frame-arp")),
    rule("frame", "IPv6", equals(_ETHER_TYPE, b"\x86\xdd"), goto("frame-ip6")),
    rule("frame", "nothing else", goto("refuse-protocol")),
    # IPv4
    rule("frame-ip4", "in its own name", _OWN_IPV4, goto("own-ip4")),
    rule("frame-ip4", "in nobody else's", goto("refuse-spoofed")),
    *_pieces("own-ip4", _PIECE4),
    rule(
        "own-ip4",
        "for the gateway",
        _TO_GATEWAY,
        _PLAIN4,
        _NOT_TO_LOOPBACK4,
        _TO_UNICAST4,
        ACCEPT,
    ),
    rule("own-ip4", "nothing else", goto("refuse-protocol")),
    # ARP
    rule("frame-arp", "for IPv4", _ARP_FOR_IPV4, _ARP_QUESTION_OR_ANSWER, goto("own-arp")),
    rule("frame-arp", "nothing else", goto("refuse-protocol")),
    rule("own-arp", "in its own name", _OWN_ARP, _OWN_ARP_ETHER, ACCEPT),
    rule("own-arp", "in nobody else's", goto("refuse-spoofed")),
    # IPv6
    rule("frame-ip6", "in its own name", _OWN_IPV6, goto("own-ip6")),
    rule(
        "frame-ip6",
        "whether its own address is taken",  # RFC 4862, 5.4.2
        _FROM_NOBODY6,
        _SOLICIT,
        _TO_SOLICITED,
        _OWN_TARGET,
        ACCEPT,
    ),
    # Every Linux says the next three when it boots, whether it is given IPv6 or not.
    rule("frame-ip6", "no other address is tried", _FROM_NOBODY6, _SOLICIT, goto("hush")),
    rule("frame-ip6", "no router is asked for", _ROUTER_SOLICIT, goto("hush")),
    rule("frame-ip6", "no group is joined", _GROUPS, goto("hush")),
    rule("frame-ip6", "in nobody else's", goto("refuse-spoofed")),
    rule("own-ip6", "asking for the gateway again", _SOLICIT, _TO_GATEWAY, goto("own-nd")),
    rule("own-ip6", "asking for a neighbour", _SOLICIT, _TO_SOLICITED, goto("own-nd")),
    rule("own-ip6", "answering", _ADVERTISE, _TO_GATEWAY, _OWN_TARGET, goto("own-nd")),
    rule("own-ip6", "no router is asked for", _ROUTER_SOLICIT, goto("hush")),
    rule("own-ip6", "no group is joined", _GROUPS, goto("hush")),
    # It has no policy, and no share of what the host tracks.
    rule("own-ip6", "nothing else from the link's address", _FROM_LINK6, goto("refuse-protocol")),
    *_pieces("own-ip6", _PIECE6),
    *(
        rule("own-ip6", f"{name} for the gateway", match, _TO_GATEWAY, _TO_UNICAST6, ACCEPT)
        for name, match in (
            ("TCP", equals(_NEXT6, TCP)),
            ("UDP", equals(_NEXT6, UDP)),
            ("errors", _icmp6(1, 4)),
            ("echo", _icmp6(128, 129)),
            ("pieces of TCP", (*_PIECE6, *equals(_INNER6, TCP))),
            ("pieces of UDP", (*_PIECE6, *equals(_INNER6, UDP))),
            ("pieces of ICMP", (*_PIECE6, *equals(_INNER6, IP6.icmp))),
        )
    ),
    rule("own-ip6", "nothing else", goto("refuse-protocol")),
    rule("own-nd", "without an option", equals(_LENGTH6, b"\0\x18"), ACCEPT),
    rule(
        "own-nd",
        "with its own MAC",  # RFC 4861, 4.6.1
        equals(_LENGTH6, b"\0\x20"),
        between(_ND_OPTION, b"\1\1", b"\2\1"),
        _OWN_ND_ETHER,
        ACCEPT,
    ),
    rule("own-nd", "nothing else", goto("refuse-spoofed")),
    # What goes another way
    rule("reserved", "nothing for switches", tap(IIFNAME), _TO_RESERVED, goto("hush")),
    rule("between", "nothing from guests", tap(IIFNAME), DROP),
    rule("between", "nothing to guests", tap(OIFNAME), DROP),
    rule("shape", "bytes a second", among("ingress_bytes", OIFNAME), DROP),
    rule("shape", "packets a second", among("ingress_packets", OIFNAME), DROP),
    # Refusals
    *_refusal(reasons.SPOOFED),
    *_refusal(reasons.PROTOCOL),
    rule("hush", "counted", jump("count")),
    rule("hush", "dropped", DROP),
    rule("count", "by port, in denials", mapped("denials", IIFNAME)),
)
