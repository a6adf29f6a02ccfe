"""The table "inet nexus": what guests reach, who reaches them, and how addresses are translated.

Frames have passed "bridge nexus" before: a source that comes here is the guest's own.
"""

from __future__ import annotations

from nexus_netd.rules import reasons
from nexus_netd.rules.expressions import (
    ACCEPT,
    CT_STATE,
    CT_STATUS,
    DESTINATION_PORT,
    DROP,
    ICMP_TYPE,
    IIFNAME,
    IP4,
    IP6,
    L4PROTO,
    MASQUERADE,
    OIFNAME,
    PROHIBITED,
    RESET,
    TCP,
    TO_LOCAL,
    UDP,
    VERSIONS,
    Expressions,
    Version,
    among,
    among_not,
    any_bit,
    between,
    both,
    chosen,
    equals,
    forward_to_mapped,
    goto,
    jump,
    log,
    mapped,
    masked,
    redirect,
    rule,
    tap,
    within,
)
from nexus_netd.rules.policy import METADATA, NONE, OPEN
from nexus_netd.rules.ruleset import POLICY, VERDICT, Chain, Element, Family, Rule, Set, number

RESOLVER_PORT = 7753
"""Where the resolver listens on each gateway, by UDP and TCP."""

# linux/netfilter.h and linux/netfilter_ipv4.h
_PREROUTING, _INPUT, _FORWARD, _OUTPUT, _POSTROUTING = range(5)
_DSTNAT, _FILTER, _SRCNAT = -100, -10, 100
# Before `filter`, where others drop in silence: what ours refuses is told and counted beside them,
# whoever's table was loaded first.

HOOKS = (
    Chain("prerouting", "nat", _PREROUTING, _DSTNAT),
    Chain("input", "filter", _INPUT, _FILTER),
    Chain("forward", "filter", _FORWARD, _FILTER),
    Chain("output", "nat", _OUTPUT, _DSTNAT),
    Chain("sent", "filter", _OUTPUT, _FILTER),
    Chain("postrouting", "nat", _POSTROUTING, _SRCNAT),
)


def _sets(version: Version) -> tuple[Set, ...]:
    ip = f"ip{version}"
    return (
        Set(f"gateways{version}", ("ifname", ip)),
        Set(f"policy{version}", (ip,), ("number", "number")),
        Set(f"pins{version}", (ip, ip, "number"), timeout=True),
        Set(f"links{version}", (ip, ip, "protocol", "port")),
        Set(f"links{version}_all", (ip, ip, "protocol")),
        Set(f"own{version}", (ip, ip)),
        Set(f"connections{version}", (ip,)),
        Set(f"denials{version}", (ip,)),
        Set(f"events{version}", (ip,)),
        Set(f"host_ports{version}", (ip, "protocol", "port")),
        Set(f"published{version}", (ip, "protocol", "port"), (ip, "port")),
        Set(f"published{version}_any", ("protocol", "port"), (ip, "port")),
        Set(f"targets{version}", (ip, "protocol", "port")),
    )


SETS = (
    Set("bridges", ("ifname",)),
    Set("policies", ("number",), VERDICT),
    *_sets(IP4),
    *_sets(IP6),
)

ELEMENTS = (
    Element(Family.INET, "policies", number(OPEN), f"{POLICY}open"),
    Element(Family.INET, "policies", number(NONE), f"{POLICY}none"),
)

_FROM_GUEST, _TO_GUEST = among("bridges", IIFNAME), among("bridges", OIFNAME)
_TO_OUTSIDE = among_not("bridges", OIFNAME)
_FROM_LOOPBACK4 = (*IP4.this, *masked(IP4.source, *IP4.loopback))
_SERVICE = (L4PROTO, DESTINATION_PORT)

# linux/netfilter/nf_conntrack_common.h: IP_CT_* as bits, and IPS_DST_NAT
_ESTABLISHED, _RELATED = any_bit(CT_STATE, number(2)), any_bit(CT_STATE, number(4))
_INVALID = any_bit(CT_STATE, number(1))
_FORWARDED = any_bit(CT_STATUS, number(1 << 5))

_DNS = equals(DESTINATION_PORT, b"\0\x35")
_RESOLVER = equals(DESTINATION_PORT, RESOLVER_PORT.to_bytes(2, "big"))
_NEIGHBOURS = (  # solicitation and advertisement, which conntrack does not look at
    *IP6.this,
    *equals(L4PROTO, IP6.icmp),
    *between(ICMP_TYPE, b"\x87", b"\x88"),
)


def _icmp(version: Version, kind: bytes) -> Expressions:
    return (*equals(L4PROTO, version.icmp), *equals(ICMP_TYPE, kind))


def _own_gateway(version: Version) -> Expressions:
    return among(f"gateways{version}", IIFNAME, version.destination)


def _no_redirects(chain: str, verdict: Expressions) -> tuple[Rule, ...]:
    """Refuse what would turn the host's routes, or a guest's."""
    return both(chain, "no ICMP redirects", lambda v: (_icmp(v, v.redirect), verdict))


def _own_errors(chain: str, verb: str, direction: int) -> tuple[Rule, ...]:
    return both(
        chain,
        f"errors of a connection that it {verb}",
        lambda v: (
            _RELATED,
            equals(L4PROTO, v.icmp),
            among(f"own{v}", v.source, v.origins[direction]),
            ACCEPT,
        ),
    )


def _new_only(chain: str) -> tuple[Rule, ...]:
    """Let through what belongs to a connection of the guest's, and no connection too many.

    An error is "related" to whatever connection it quotes, and anybody may quote another's.
    """
    return (
        rule(chain, "what is established", _ESTABLISHED, ACCEPT),
        *_no_redirects(chain, goto("refuse-protocol")),
        *_own_errors(chain, "opened", 0),
        *_own_errors(chain, "answers", 1),
        *both(
            chain,
            "no errors of others' connections",
            lambda v: (_RELATED, equals(L4PROTO, v.icmp), goto("refuse-spoofed")),
        ),
        rule(chain, "nothing invalid", _INVALID, DROP),
        *both(
            chain,
            "not too many connections",
            lambda v: (among(f"connections{v}", v.source), goto("refuse-connections")),
        ),
    )


def _published(chain: str) -> tuple[Rule, ...]:
    return (
        *both(
            chain,
            "published on an address",
            lambda v: (mapped(f"published{v}", v.destination, *_SERVICE), forward_to_mapped(v)),
        ),
        *both(
            chain,
            "published on all addresses",
            lambda v: (TO_LOCAL, mapped(f"published{v}_any", *_SERVICE), forward_to_mapped(v)),
        ),
    )


def _names(name: str, protocol: bytes) -> tuple[Rule, ...]:
    return both(
        "names",
        f"DNS by {name}",
        lambda v: (
            equals(L4PROTO, protocol),
            _DNS,
            _own_gateway(v),
            redirect(RESOLVER_PORT),
        ),
    )


def _refusal(reason: str) -> tuple[Rule, ...]:
    """Return the chain that refuses; telling of it is a rule apart, for a limit may end it."""
    chain = f"refuse-{reason.replace(' ', '-')}"
    told = log(reasons.NFLOG_GROUP, reasons.PREFIX + reason)
    return (
        *both(chain, "told", lambda v: (among(f"events{v}", v.source), told)),
        rule(chain, "refused", goto("refuse")),
    )


def _metadata() -> tuple[Rule, ...]:
    by_number = {version.number: version for version in VERSIONS}
    return tuple(
        rule(
            "metadata",
            str(cidr),
            version.this,
            within(version.destination, cidr),
            goto("refuse-metadata"),
        )
        for cidr in METADATA
        for version in (by_number[cidr.version],)
    )


RULES: tuple[Rule, ...] = (
    # Through the host
    rule("forward", "no TAP is without its bridge", tap(IIFNAME), DROP),
    rule("forward", "from guests", _FROM_GUEST, goto("from-guest")),
    rule("forward", "to guests", _TO_GUEST, goto("to-guest")),
    *_new_only("from-guest"),
    rule("from-guest", "to other guests", _TO_GUEST, goto("to-other")),
    *both("from-guest", "by policy", lambda v: (chosen(f"policy{v}", v.source, "policies"),)),
    rule("from-guest", "nobody else's", DROP),
    *both(
        "to-other",
        "links",
        lambda v: (among(f"links{v}", v.source, v.destination, *_SERVICE), ACCEPT),
    ),
    *both(
        "to-other",
        "links for all ports",
        lambda v: (among(f"links{v}_all", v.source, v.destination, L4PROTO), ACCEPT),
    ),
    rule("to-other", "nothing else", goto("refuse-other-guest")),
    rule("to-guest", "what is established", _ESTABLISHED, ACCEPT),
    *both("to-guest", "errors", lambda v: (_RELATED, equals(L4PROTO, v.icmp), ACCEPT)),
    *both(
        "to-guest",
        "published",
        lambda v: (_FORWARDED, among(f"targets{v}", v.destination, *_SERVICE), ACCEPT),
    ),
    rule("to-guest", "nothing else", goto("answer")),
    # To the host
    rule("input", "no TAP is without its bridge", tap(IIFNAME), DROP),
    rule("input", "from guests", _FROM_GUEST, goto("to-host")),
    rule("to-host", "neighbour discovery", _NEIGHBOURS, ACCEPT),
    *_new_only("to-host"),
    rule("to-host", "DNS by UDP", _FORWARDED, equals(L4PROTO, UDP), _RESOLVER, ACCEPT),
    rule("to-host", "DNS by TCP", _FORWARDED, equals(L4PROTO, TCP), _RESOLVER, ACCEPT),
    *both(
        "to-host",
        "ping",
        lambda v: (_icmp(v, v.echo_request), _own_gateway(v), ACCEPT),
    ),
    *both(
        "to-host",
        "host ports",
        lambda v: (
            _own_gateway(v),
            among(f"host_ports{v}", v.destination, *_SERVICE),
            ACCEPT,
        ),
    ),
    rule("to-host", "nothing else", goto("refuse-host")),
    # From the host
    rule("sent", "to guests", _TO_GUEST, jump("sent-to-guest")),
    *_no_redirects("sent-to-guest", DROP),
    # Other addresses
    rule("prerouting", "from guests", _FROM_GUEST, goto("names")),
    # Or a neighbour on the wire would reach what is published on 127.0.0.1.
    *both("prerouting", "not for loopback", lambda v: (masked(v.destination, *v.loopback), ACCEPT)),
    *_published("prerouting"),
    # IPv6 knows no way back from a guest to ::1, as route_localnet is for IPv4.
    rule("output", "not for loopback, IPv6", masked(IP6.destination, *IP6.loopback), ACCEPT),
    *_published("output"),
    *_names("UDP", UDP),
    *_names("TCP", TCP),
    rule("postrouting", "guests to the outside", _FROM_GUEST, _TO_OUTSIDE, MASQUERADE),
    rule("postrouting", "loopback to guests", _TO_GUEST, _FROM_LOOPBACK4, MASQUERADE),
    # Policies without rules of their own
    rule(f"{POLICY}open", "no metadata", jump("metadata")),
    rule(f"{POLICY}open", "everything", ACCEPT),
    rule(f"{POLICY}none", "nothing", goto("refuse-policy-none")),
    *_metadata(),
    # Refusals
    *_refusal(reasons.SPOOFED),
    *_refusal(reasons.PROTOCOL),
    *_refusal(reasons.CONNECTIONS),
    *_refusal(reasons.OTHER_GUEST),
    *_refusal(reasons.HOST),
    *_refusal(reasons.METADATA),
    *_refusal(reasons.NONE),
    *_refusal(reasons.NO_RULE),
    *both("refuse", "counted", lambda v: (among(f"denials{v}", v.source),)),
    rule("refuse", "at once", goto("answer")),
    rule("answer", "TCP", equals(L4PROTO, TCP), RESET),
    rule("answer", "all else", PROHIBITED),
)
