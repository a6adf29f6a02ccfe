"""The table "inet nexus" as data: what guests may reach, and how they leave the host.

Nobody else's packets meet a verdict other than accept here: each rule names the bridge or the
subnet. An accept in this table does not override a drop in another's (nft(8), "verdict").
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Meta

if TYPE_CHECKING:
    from ipaddress import IPv4Network

NAME = "nexus"

# linux/netfilter/nf_tables.h and linux/netfilter.h
_DROP, _ACCEPT = 0, 1
_REG_VERDICT, _REG_1 = 0, 1
_CT_STATE = 0
_ESTABLISHED_OR_RELATED = (2 | 4).to_bytes(4, "little")
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_REJECT_ICMPX = 2
_ICMPX_PORT_UNREACHABLE, _ICMPX_ADMIN_PROHIBITED = 1, 3
_ICMP_ECHO_REQUEST = 8
_NFPROTO_IPV4 = 2
_IFNAMSIZ = 16

Expression = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass(frozen=True)
class Rule:
    """One rule. The comment is stored with it, and tells it apart in what the kernel lists."""

    chain: str
    comment: str
    expressions: tuple[Expression, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Chain:
    """A base chain; its policy is always accept."""

    name: str
    kind: str
    hook: int
    priority: int
    policy: int = _ACCEPT


@dataclass(frozen=True)
class Table:
    """A whole table. `comment` holds the digest of everything in it; rules stand chain by chain."""

    comment: str
    chains: frozenset[Chain]
    rules: tuple[Rule, ...]


_INPUT = Chain("input", "filter", hook=1, priority=0)
_FORWARD = Chain("forward", "filter", hook=2, priority=0)
_POSTROUTING = Chain("postrouting", "nat", hook=4, priority=100)


def table(bridge: str, subnet: IPv4Network) -> Table:
    """Return the table for guests of `subnet` behind `bridge`."""
    inside, outside = _link(Meta.NFT_META_IIFNAME, bridge), _link(Meta.NFT_META_OIFNAME, bridge)
    ours = _source(subnet, Cmp.NFT_CMP_EQ)
    rules = (
        Rule(
            "forward",
            "guests do not reach each other",
            (*inside, *outside, _rejected(_ICMPX_ADMIN_PROHIBITED)),
        ),
        Rule("forward", "no IPv6", (*inside, *_NOT_IPV4, _DROPPED)),
        Rule(
            "forward",
            "no foreign sources",
            (*inside, *_source(subnet, Cmp.NFT_CMP_NEQ), _DROPPED),
        ),
        Rule("forward", "guests to the outside", (*inside, _ACCEPTED)),
        Rule("forward", "answers to guests", (*outside, *_KNOWN, _ACCEPTED)),
        Rule(
            "forward",
            "nobody opens a connection to a guest",
            (*outside, _rejected(_ICMPX_ADMIN_PROHIBITED)),
        ),
        Rule("input", "answers to the host", (*inside, *_KNOWN, _ACCEPTED)),
        Rule("input", "ping", (*inside, *ours, *_PING, _ACCEPTED)),
        Rule("input", "no host services", (*inside, _rejected(_ICMPX_PORT_UNREACHABLE))),
        Rule(
            "postrouting",
            "NAT",
            (
                *ours,
                *_link(Meta.NFT_META_OIFNAME, bridge, Cmp.NFT_CMP_NEQ),
                ("masq", ()),
            ),
        ),
    )
    # repr of a rule is all of it: names, numbers and bytes.
    digest = hashlib.sha256(repr((_INPUT, _FORWARD, _POSTROUTING, rules)).encode()).hexdigest()
    return Table(f"nexus-netd {digest[:16]}", frozenset({_INPUT, _FORWARD, _POSTROUTING}), rules)


def _compare(value: bytes, op: int = Cmp.NFT_CMP_EQ) -> Expression:
    data = {"attrs": [("NFTA_DATA_VALUE", value)]}
    return (
        "cmp",
        (("NFTA_CMP_SREG", _REG_1), ("NFTA_CMP_OP", int(op)), ("NFTA_CMP_DATA", data)),
    )


def _meta(key: int) -> Expression:
    return ("meta", (("NFTA_META_KEY", int(key)), ("NFTA_META_DREG", _REG_1)))


def _payload(base: int, offset: int, length: int) -> Expression:
    return (
        "payload",
        (
            ("NFTA_PAYLOAD_DREG", _REG_1),
            ("NFTA_PAYLOAD_BASE", base),
            ("NFTA_PAYLOAD_OFFSET", offset),
            ("NFTA_PAYLOAD_LEN", length),
        ),
    )


def _bitwise(mask: bytes) -> Expression:
    return (
        "bitwise",
        (
            ("NFTA_BITWISE_SREG", _REG_1),
            ("NFTA_BITWISE_DREG", _REG_1),
            ("NFTA_BITWISE_LEN", len(mask)),
            ("NFTA_BITWISE_MASK", {"attrs": [("NFTA_DATA_VALUE", mask)]}),
            ("NFTA_BITWISE_XOR", {"attrs": [("NFTA_DATA_VALUE", bytes(len(mask)))]}),
        ),
    )


def _link(key: int, name: str, op: int = Cmp.NFT_CMP_EQ) -> tuple[Expression, ...]:
    return (_meta(key), _compare(name.encode().ljust(_IFNAMSIZ, b"\0"), op))


def _source(subnet: IPv4Network, op: int) -> tuple[Expression, ...]:
    """Match IPv4 packets whose source is in the subnet, or (NEQ) is not."""
    return (
        *_IPV4,
        _payload(_NETWORK_HEADER, 12, 4),
        _bitwise(subnet.netmask.packed),
        _compare(subnet.network_address.packed, op),
    )


def _verdict(code: int) -> Expression:
    verdict = {"attrs": [("NFTA_VERDICT_CODE", code)]}
    data = {"attrs": [("NFTA_DATA_VERDICT", verdict)]}
    return ("immediate", (("NFTA_IMMEDIATE_DREG", _REG_VERDICT), ("NFTA_IMMEDIATE_DATA", data)))


def _rejected(code: int) -> Expression:
    return ("reject", (("NFTA_REJECT_TYPE", _REJECT_ICMPX), ("NFTA_REJECT_ICMP_CODE", code)))


_DROPPED, _ACCEPTED = _verdict(_DROP), _verdict(_ACCEPT)
_IPV4 = (_meta(Meta.NFT_META_NFPROTO), _compare(bytes([_NFPROTO_IPV4])))
_NOT_IPV4 = (_meta(Meta.NFT_META_NFPROTO), _compare(bytes([_NFPROTO_IPV4]), Cmp.NFT_CMP_NEQ))
_PING = (
    _meta(Meta.NFT_META_L4PROTO),
    _compare(bytes([socket.IPPROTO_ICMP])),
    _payload(_TRANSPORT_HEADER, 0, 1),
    _compare(bytes([_ICMP_ECHO_REQUEST])),
)
_KNOWN = (
    ("ct", (("NFTA_CT_KEY", _CT_STATE), ("NFTA_CT_DREG", _REG_1))),
    _bitwise(_ESTABLISHED_OR_RELATED),
    _compare(bytes(4), Cmp.NFT_CMP_NEQ),
)
