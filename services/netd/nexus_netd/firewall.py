"""The tables "bridge nexus" and "inet nexus" as data: what guests may send, reach and offer.

All that does not depend on networks and ports; those are elements of the sets (`elements`), and a
chain for each policy (`policy`). Frames and packets that are neither from nor to a guest meet no
verdict here but accept, which overrides no drop of another table (nft(8), "verdict").
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from nexus_netd import expressions as x
from nexus_netd import reasons
from nexus_netd.expressions import ACCEPT, DROP, IIFNAME, OIFNAME, VERSIONS, goto, jump
from nexus_netd.policy import METADATA, NONE, OPEN
from nexus_netd.ruleset import (
    POLICY,
    VERDICT,
    Chain,
    Element,
    Family,
    Rule,
    Set,
    Skeleton,
    number,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus_netd.expressions import Expressions, Version

NFLOG_GROUP = reasons.NFLOG_GROUP
RESOLVER_PORT = 7753
"""Where the resolver listens on each gateway, by UDP and TCP."""

# linux/netfilter_bridge.h and linux/netfilter.h
_PREROUTING, _INPUT, _FORWARD, _OUTPUT, _POSTROUTING = range(5)
_EARLY, _DSTNAT, _FILTER, _SRCNAT = -300, -100, 0, 100

# linux/netfilter/nf_conntrack_common.h
_INVALID, _ESTABLISHED_OR_RELATED, _DNAT_DONE = 1, 2 | 4, 1 << 5

_ETHER_TO, _ETHER_FROM, _ETHER_TYPE = x.link(0, 6), x.link(6, 6), x.link(12, 2)
_TO_RESERVED = x.equals(x.link(0, 5), bytes.fromhex("0180c20000"))  # IEEE 802.1D, 7.12.6
_TO_GATEWAY = x.among("gateways_ether", _ETHER_TO)
_TO_SOLICITED = x.equals(x.link(0, 3), bytes.fromhex("3333ff"))  # RFC 4291, 2.7.1
_KNOWN = x.any_bit(x.CT_STATE, _ESTABLISHED_OR_RELATED)
_FORWARDED = x.any_bit(x.CT_STATUS, _DNAT_DONE)

# ARP (RFC 826)
_ARP_FOR_IPV4 = x.equals(x.network(0, 6), bytes.fromhex("000108000604"))
_ARP_ASKS_OR_ANSWERS = x.between(x.network(6, 2), b"\0\1", b"\0\2")
_ARP_ETHER, _ARP_ADDRESS = x.network(8, 6), x.network(14, 4)

# IPv4 (RFC 791): version 4, and a header of 20 bytes, which has no options
_NO_OPTIONS = x.equals(x.network(0, 1), b"\x45")
_TO_UNICAST4 = (
    *x.differs(x.network(16, 1), b"\x7f"),
    *x.between(x.network(16, 1), b"\x01", b"\xdf"),
)

# IPv6 (RFC 8200) and its neighbour discovery (RFC 4861), as far as no extension header is in it
_LENGTH6, _NEXT6, _INNER6 = x.network(4, 2), x.network(6, 1), x.network(40, 1)
_FROM_NOBODY6 = x.equals(x.IP6.source, bytes(16))
_TO_UNICAST6 = x.between(x.network(24, 1), b"\x00", b"\xfe")
_ND_TARGET, _ND_OPTION, _ND_ETHER = x.network(48, 16), x.network(64, 2), x.network(66, 6)
_TCP, _UDP, _FRAGMENT, _ICMP6, _HOP_BY_HOP = b"\x06", b"\x11", b"\x2c", b"\x3a", b"\x00"


def _icmp6(first: int, last: int | None = None) -> Expressions:
    """Match ICMPv6 (RFC 4443) of these types."""
    low, high = bytes([first]), bytes([last or first])
    return (*x.equals(_NEXT6, _ICMP6), *x.between(x.network(40, 1), low, high))


_SOLICIT, _ADVERTISE = _icmp6(135), _icmp6(136)

_BRIDGE_CHAINS = (
    Chain("guard", "filter", _PREROUTING, _EARLY),
    Chain("reserved", "filter", _INPUT, _EARLY),
    Chain("between", "filter", _FORWARD, _EARLY),
    Chain("shape", "filter", _POSTROUTING, _EARLY),
)

_BRIDGE_SETS = (
    Set("gateways_ether", ("ether",)),
    Set("guests4", ("ifname", "ether", "ip4")),
    Set("guests6", ("ifname", "ether", "ip6")),
    Set("egress_bytes", ("ifname",)),
    Set("egress_packets", ("ifname",)),
    Set("ingress_bytes", ("ifname",)),
    Set("ingress_packets", ("ifname",)),
    Set("denials", ("ifname",), ("ip4",)),
    Set("events", ("ifname",)),
)

_BRIDGE_RULES: tuple[tuple[str, str, Expressions], ...] = (
    ("guard", "frames of guests", (*x.tap(IIFNAME), *goto("frame"))),
    ("frame", "bytes a second", (*x.among("egress_bytes", IIFNAME), *DROP)),
    ("frame", "packets a second", (*x.among("egress_packets", IIFNAME), *DROP)),
    # By what was on the wire: a VLAN's tag is its type, though the kernel has taken it off.
    ("frame", "IPv4", (*x.equals(_ETHER_TYPE, b"\x08\x00"), *goto("frame-ip4"))),
    ("frame", "ARP", (*x.equals(_ETHER_TYPE, b"\x08\x06"), *goto("frame-arp"))),
    ("frame", "IPv6", (*x.equals(_ETHER_TYPE, b"\x86\xdd"), *goto("frame-ip6"))),
    ("frame", "nothing else", goto("refuse-protocol")),
    # IPv4
    (
        "frame-ip4",
        "its own MAC and address",
        (*x.among("guests4", IIFNAME, _ETHER_FROM, x.IP4.source), *goto("frame-ip4-own")),
    ),
    ("frame-ip4", "nobody else's", goto("refuse-spoofed")),
    ("frame-ip4-own", "to the gateway", (*_TO_GATEWAY, *_NO_OPTIONS, *_TO_UNICAST4, *ACCEPT)),
    ("frame-ip4-own", "nothing else", goto("refuse-protocol")),
    # ARP
    (
        "frame-arp",
        "questions and answers",
        (*_ARP_FOR_IPV4, *_ARP_ASKS_OR_ANSWERS, *goto("frame-arp-own")),
    ),
    ("frame-arp", "nothing else", goto("refuse-protocol")),
    (
        "frame-arp-own",
        "its own MAC and address",
        (
            *x.among("guests4", IIFNAME, _ETHER_FROM, _ARP_ADDRESS),
            *x.among("guests4", IIFNAME, _ARP_ETHER, _ARP_ADDRESS),
            *ACCEPT,
        ),
    ),
    ("frame-arp-own", "nobody else's", goto("refuse-spoofed")),
    # IPv6
    (
        "frame-ip6",
        "its own MAC and address",
        (*x.among("guests6", IIFNAME, _ETHER_FROM, x.IP6.source), *goto("frame-ip6-own")),
    ),
    (
        "frame-ip6",
        "whether its own address is taken",  # RFC 4862, 5.4.2
        (
            *_FROM_NOBODY6,
            *_SOLICIT,
            *_TO_SOLICITED,
            *x.among("guests6", IIFNAME, _ETHER_FROM, _ND_TARGET),
            *ACCEPT,
        ),
    ),
    # Every Linux says these when it boots, with IPv6 or without.
    ("frame-ip6", "no address is being tried", (*_FROM_NOBODY6, *_SOLICIT, *goto("hush"))),
    ("frame-ip6", "no router is asked for", (*_icmp6(133), *goto("hush"))),
    ("frame-ip6", "no group is joined", (*x.equals(_NEXT6, _HOP_BY_HOP), *goto("hush"))),
    ("frame-ip6", "nobody else's", goto("refuse-spoofed")),
    ("frame-ip6-own", "who has the gateway's", (*_SOLICIT, *_TO_GATEWAY, *goto("neighbour"))),
    ("frame-ip6-own", "who has", (*_SOLICIT, *_TO_SOLICITED, *goto("neighbour"))),
    (
        "frame-ip6-own",
        "it has its own",
        (
            *_ADVERTISE,
            *_TO_GATEWAY,
            *x.among("guests6", IIFNAME, _ETHER_FROM, _ND_TARGET),
            *goto("neighbour"),
        ),
    ),
    *(
        ("frame-ip6-own", f"{name} to the gateway", (*what, *_TO_GATEWAY, *_TO_UNICAST6, *ACCEPT))
        for name, what in (
            ("TCP", x.equals(_NEXT6, _TCP)),
            ("UDP", x.equals(_NEXT6, _UDP)),
            ("errors", _icmp6(1, 4)),
            ("echo", _icmp6(128, 129)),
            ("pieces of TCP", (*x.equals(_NEXT6, _FRAGMENT), *x.equals(_INNER6, _TCP))),
            ("pieces of UDP", (*x.equals(_NEXT6, _FRAGMENT), *x.equals(_INNER6, _UDP))),
            ("pieces of echo", (*x.equals(_NEXT6, _FRAGMENT), *x.equals(_INNER6, _ICMP6))),
        )
    ),
    ("frame-ip6-own", "no router is asked for", (*_icmp6(133), *goto("hush"))),
    ("frame-ip6-own", "no group is joined", (*x.equals(_NEXT6, _HOP_BY_HOP), *goto("hush"))),
    ("frame-ip6-own", "nothing else", goto("refuse-protocol")),
    ("neighbour", "without an option", (*x.equals(_LENGTH6, b"\0\x18"), *ACCEPT)),
    (
        "neighbour",
        "with its own MAC",  # RFC 4861, 4.6.1
        (
            *x.equals(_LENGTH6, b"\0\x20"),
            *x.between(_ND_OPTION, b"\1\1", b"\2\1"),
            *x.among("guests6", IIFNAME, _ND_ETHER, x.IP6.source),
            *ACCEPT,
        ),
    ),
    ("neighbour", "nothing else", goto("refuse-spoofed")),
    # What does not pass prerouting's way, or leads elsewhere than to the host
    ("reserved", "no STP, LLDP and the like", (*x.tap(IIFNAME), *_TO_RESERVED, *goto("hush"))),
    ("between", "from no guest", (*x.tap(IIFNAME), *DROP)),
    ("between", "to no guest", (*x.tap(OIFNAME), *DROP)),
    ("shape", "bytes a second", (*x.among("ingress_bytes", OIFNAME), *DROP)),
    ("shape", "packets a second", (*x.among("ingress_packets", OIFNAME), *DROP)),
    # Refusals
    *(
        row
        for reason in (reasons.SPOOFED, reasons.PROTOCOL)
        for row in (
            (f"refuse-{reason}", "counted", jump("count")),
            (
                f"refuse-{reason}",
                "told",
                (
                    *x.among("events", IIFNAME),
                    *x.log(NFLOG_GROUP, reasons.PREFIX + reason),
                ),
            ),
            (f"refuse-{reason}", "dropped", DROP),
        )
    ),
    ("hush", "counted", jump("count")),
    ("hush", "dropped", DROP),
    ("count", "by port", x.mapped("denials", IIFNAME)),
)

_INET_CHAINS = (
    Chain("prerouting", "nat", _PREROUTING, _DSTNAT),
    Chain("input", "filter", _INPUT, _FILTER),
    Chain("forward", "filter", _FORWARD, _FILTER),
    Chain("output", "nat", _OUTPUT, _DSTNAT),
    Chain("sent", "filter", _OUTPUT, _FILTER),
    Chain("postrouting", "nat", _POSTROUTING, _SRCNAT),
)

_INET_SETS = (
    Set("bridges", ("ifname",)),
    Set("policies", ("number",), VERDICT),
    *(
        declaration
        for version in VERSIONS
        for ip in (f"ip{version}",)
        for declaration in (
            Set(f"gateways{version}", (ip,)),
            Set(f"policy{version}", (ip,), ("number", "number")),
            Set(f"pins{version}", (ip, ip, "number"), timeout=True),
            Set(f"links{version}", (ip, ip, "protocol", "port")),
            Set(f"links{version}_all", (ip, ip, "protocol")),
            Set(f"connections{version}", (ip,)),
            Set(f"denials{version}", (ip,)),
            Set(f"events{version}", (ip,)),
            Set(f"host_ports{version}", (ip, "protocol", "port")),
            Set(f"published{version}", (ip, "protocol", "port"), (ip, "port")),
            Set(f"published{version}_any", ("protocol", "port"), (ip, "port")),
            Set(f"targets{version}", (ip, "protocol", "port")),
        )
    ),
)

_SERVICE = (x.L4PROTO, x.DESTINATION_PORT)


def _each(
    chain: str, comment: str, rule: Iterable[tuple[Version, Expressions]]
) -> tuple[tuple[str, str, Expressions], ...]:
    """Return a rule for each version of IP."""
    return tuple(
        (chain, f"{comment}, IPv{version}", (*version.this, *expressions))
        for version, expressions in rule
    )


def _redirects(chain: str, verdict: Expressions) -> tuple[tuple[str, str, Expressions], ...]:
    return _each(
        chain,
        "no ICMP redirect",
        (
            (v, (*x.equals(x.L4PROTO, v.icmp), *x.equals(x.ICMP_TYPE, v.redirect), *verdict))
            for v in VERSIONS
        ),
    )


def _published(chain: str) -> tuple[tuple[str, str, Expressions], ...]:
    return (
        *_each(
            chain,
            "published",
            (
                (
                    v,
                    (
                        *x.mapped(f"published{v}", v.destination, *_SERVICE),
                        *x.forward_to_mapped(v),
                    ),
                )
                for v in VERSIONS
            ),
        ),
        *_each(
            chain,
            "published on every address",
            (
                (
                    v,
                    (
                        *x.TO_LOCAL,
                        *x.mapped(f"published{v}_any", *_SERVICE),
                        *x.forward_to_mapped(v),
                    ),
                )
                for v in VERSIONS
            ),
        ),
    )


def _over_connections(chain: str) -> tuple[tuple[str, str, Expressions], ...]:
    return _each(
        chain,
        "too many connections",
        (
            (v, (*x.among(f"connections{v}", v.source), *goto("refuse-connections")))
            for v in VERSIONS
        ),
    )


_INET_RULES: tuple[tuple[str, str, Expressions], ...] = (
    # Forwarding: a guest's packets, and those to a guest
    ("forward", "no TAP is without its bridge", (*x.tap(IIFNAME), *DROP)),
    ("forward", "from guests", (*x.among("bridges", IIFNAME), *goto("from-guest"))),
    ("forward", "to guests", (*x.among("bridges", OIFNAME), *goto("to-guest"))),
    *_redirects("from-guest", goto("refuse-protocol")),
    ("from-guest", "what is known", (*_KNOWN, *ACCEPT)),
    ("from-guest", "nothing invalid", (*x.any_bit(x.CT_STATE, _INVALID), *DROP)),
    *_over_connections("from-guest"),
    ("from-guest", "to other guests", (*x.among("bridges", OIFNAME), *goto("to-other"))),
    *_each(
        "from-guest",
        "by its policy",
        ((v, x.chosen(f"policy{v}", v.source, "policies")) for v in VERSIONS),
    ),
    ("from-guest", "nobody else's", DROP),
    *_each(
        "to-other",
        "links",
        (
            (v, (*x.among(f"links{v}", v.source, v.destination, *_SERVICE), *ACCEPT))
            for v in VERSIONS
        ),
    ),
    *_each(
        "to-other",
        "links for all ports",
        (
            (v, (*x.among(f"links{v}_all", v.source, v.destination, x.L4PROTO), *ACCEPT))
            for v in VERSIONS
        ),
    ),
    ("to-other", "nothing else", goto("refuse-other-guest")),
    ("to-guest", "what is known", (*_KNOWN, *ACCEPT)),
    *_each(
        "to-guest",
        "published",
        (
            (v, (*_FORWARDED, *x.among(f"targets{v}", v.destination, *_SERVICE), *ACCEPT))
            for v in VERSIONS
        ),
    ),
    ("to-guest", "nothing else", goto("answer")),
    # The host itself
    ("input", "no TAP is without its bridge", (*x.tap(IIFNAME), *DROP)),
    ("input", "from guests", (*x.among("bridges", IIFNAME), *goto("to-host"))),
    *_redirects("to-host", goto("refuse-protocol")),
    (
        "to-host",
        "neighbour discovery",  # which conntrack does not look at
        (
            *x.IP6.this,
            *x.equals(x.L4PROTO, x.IP6.icmp),
            *x.between(x.ICMP_TYPE, b"\x87", b"\x88"),
            *ACCEPT,
        ),
    ),
    ("to-host", "what is known", (*_KNOWN, *ACCEPT)),
    ("to-host", "nothing invalid", (*x.any_bit(x.CT_STATE, _INVALID), *DROP)),
    *_over_connections("to-host"),
    *(
        (
            "to-host",
            f"DNS by {name}",
            (
                *_FORWARDED,
                *x.equals(x.L4PROTO, protocol),
                *x.equals(x.DESTINATION_PORT, RESOLVER_PORT.to_bytes(2, "big")),
                *ACCEPT,
            ),
        )
        for name, protocol in (("UDP", x.UDP), ("TCP", x.TCP))
    ),
    *_each(
        "to-host",
        "ping",
        (
            (
                v,
                (
                    *x.equals(x.L4PROTO, v.icmp),
                    *x.equals(x.ICMP_TYPE, v.echo_request),
                    *x.among(f"gateways{v}", v.destination),
                    *ACCEPT,
                ),
            )
            for v in VERSIONS
        ),
    ),
    *_each(
        "to-host",
        "host ports",
        ((v, (*x.among(f"host_ports{v}", v.destination, *_SERVICE), *ACCEPT)) for v in VERSIONS),
    ),
    ("to-host", "nothing else", goto("refuse-host")),
    ("sent", "to guests", (*x.among("bridges", OIFNAME), *jump("sent-to-guest"))),
    *_redirects("sent-to-guest", DROP),
    # Translation
    ("prerouting", "from guests", (*x.among("bridges", IIFNAME), *goto("names"))),
    # A neighbour on the wire must not reach what is published on 127.0.0.1.
    *_each(
        "prerouting",
        "not for loopback",
        ((v, (*x.masked(v.destination, *v.loopback), *ACCEPT)) for v in VERSIONS),
    ),
    *_published("prerouting"),
    *(
        row
        for name, protocol in (("UDP", x.UDP), ("TCP", x.TCP))
        for row in _each(
            "names",
            f"DNS by {name}",
            (
                (
                    v,
                    (
                        *x.equals(x.L4PROTO, protocol),
                        *x.equals(x.DESTINATION_PORT, b"\0\x35"),
                        *x.among(f"gateways{v}", v.destination),
                        *x.redirect(RESOLVER_PORT),
                    ),
                )
                for v in VERSIONS
            ),
        )
    ),
    *_published("output"),
    (
        "postrouting",
        "guests to the outside",
        (*x.among("bridges", IIFNAME), *x.among_not("bridges", OIFNAME), *x.MASQUERADE),
    ),
    *_each(
        "postrouting",
        "loopback to what is published",
        (
            (
                v,
                (
                    *x.among("bridges", OIFNAME),
                    *x.masked(v.source, *v.loopback),
                    *x.MASQUERADE,
                ),
            )
            for v in VERSIONS
        ),
    ),
    # Policies that all share
    (f"{POLICY}open", "no metadata", jump("metadata")),
    (f"{POLICY}open", "all", ACCEPT),
    (f"{POLICY}none", "nothing", goto("refuse-policy-none")),
    *(
        (
            "metadata",
            str(cidr),
            (
                *(x.IP4 if cidr.version == 4 else x.IP6).this,
                *x.within((x.IP4 if cidr.version == 4 else x.IP6).destination, cidr),
                *goto("refuse-metadata"),
            ),
        )
        for cidr in METADATA
    ),
    # Refusals
    *(
        row
        for reason in (
            reasons.PROTOCOL,
            reasons.CONNECTIONS,
            reasons.OTHER_GUEST,
            reasons.HOST,
            reasons.METADATA,
            reasons.NONE,
            reasons.NO_RULE,
        )
        for chain in (f"refuse-{reason.replace(' ', '-')}",)
        for row in (
            *_each(
                chain,
                "told",
                (
                    (
                        v,
                        (
                            *x.among(f"events{v}", v.source),
                            *x.log(NFLOG_GROUP, reasons.PREFIX + reason),
                        ),
                    )
                    for v in VERSIONS
                ),
            ),
            (chain, "refused", goto("refuse")),
        )
    ),
    *_each("refuse", "counted", ((v, x.among(f"denials{v}", v.source)) for v in VERSIONS)),
    ("refuse", "at once", goto("answer")),
    ("answer", "TCP", (*x.equals(x.L4PROTO, x.TCP), *x.RESET)),
    ("answer", "all else", x.PROHIBITED),
)

_INET_ELEMENTS = (
    Element(Family.INET, "policies", number(OPEN), f"{POLICY}open"),
    Element(Family.INET, "policies", number(NONE), f"{POLICY}none"),
)


def _skeleton(
    family: Family,
    bases: tuple[Chain, ...],
    rows: tuple[tuple[str, str, Expressions], ...],
    sets: tuple[Set, ...],
    elements: tuple[Element, ...] = (),
) -> Skeleton:
    rules = tuple(Rule(*row) for row in rows)
    known = {chain.name for chain in bases}
    others = dict.fromkeys(rule.chain for rule in rules if rule.chain not in known)
    chains = (*bases, *map(Chain, others))
    # The repr of these is all of them: names, numbers and bytes.
    digest = hashlib.sha256(repr((chains, rows, sets, elements)).encode()).hexdigest()
    return Skeleton(family, f"nexus-netd {digest[:16]}", chains, rules, sets, elements)


_SKELETONS = (
    _skeleton(Family.BRIDGE, _BRIDGE_CHAINS, _BRIDGE_RULES, _BRIDGE_SETS),
    _skeleton(Family.INET, _INET_CHAINS, _INET_RULES, _INET_SETS, _INET_ELEMENTS),
)


def skeletons() -> tuple[Skeleton, Skeleton]:
    """Return the two tables: of family bridge, and of family inet."""
    return _SKELETONS
