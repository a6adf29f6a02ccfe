"""nftables rulesets as data: expressions, rules, chains, sets and their elements.

`nexus_netd.linux.nft` writes them to the kernel and reads them back.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

NAME = "nexus"
"""Our tables' name, in each family."""

POLICY = "policy-"
"""What the names of the chains begin with that hold one policy each: "policy-3"."""

Expression = tuple[str, tuple[tuple[str, Any], ...]]
"""An expression of nftables: its name, and its attributes by `nexus_netd.linux.attributes`."""

TYPES: dict[str, tuple[int, int]] = {
    "ip4": (7, 4),
    "ip6": (8, 16),
    "ether": (9, 6),
    "protocol": (12, 1),
    "port": (13, 2),
    "number": (19, 4),
    "ifname": (41, 16),
}
"""Types that keys are made of: nft(8)'s number for it, by which it prints them, and bytes."""

VERDICT = ("verdict",)
"""What a map holds that leads to chains."""


class Family(IntEnum):
    """Families that we have a table in (linux/netfilter.h, NFPROTO_*)."""

    INET = 1
    BRIDGE = 7


@dataclass(frozen=True)
class Rule:
    """One rule. The comment is stored with it, and tells it apart in what the kernel lists."""

    chain: str
    comment: str
    expressions: tuple[Expression, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Chain:
    """A chain; one without a hook is jumped to. A base chain's policy is always accept."""

    name: str
    kind: str = ""
    hook: int = -1
    priority: int = 0


@dataclass(frozen=True)
class Set:
    """A set, or a map where there is `data`, that elements go into: a hash table in the kernel.

    `key` and `data` name TYPES. With `timeout`, elements may have one.
    """

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    timeout: bool = False


@dataclass(frozen=True)
class Element:
    """An element of one of our sets. Equal means: the same place, the same value.

    `key` is as the kernel wants it: `pack` of its parts, or its only part. `data` is a map's value:
    bytes, or the name of the chain to go to. `state` are its own expressions, with their
    parameters. `timeout` is in milliseconds; 0: none.
    """

    family: Family
    set: str
    key: bytes
    data: bytes | str | None = None
    state: tuple[Expression, ...] = ()
    timeout: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PolicyChain:
    """One policy's chain in "inet nexus", and the element that leads to it.

    The last rule's comment holds the digest of all of them.
    """

    chain: Chain
    rules: tuple[Rule, ...]
    element: Element


@dataclass(frozen=True)
class Skeleton:
    """One table's chains, rules and sets: all that does not depend on networks and ports.

    `comment` holds the digest of everything in it. `elements` are always there.
    """

    family: Family
    comment: str
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    sets: tuple[Set, ...]
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What is in our tables beyond the skeletons: elements and policies' chains, pins left out.

    As it should be, or as the kernel has it (then `intact` tells whether the skeletons are ours,
    and rules of chains are known by chain and comment only).
    """

    elements: frozenset[Element]
    policies: frozenset[PolicyChain]
    intact: bool = True


@dataclass(frozen=True)
class Change:
    """One transaction: first what goes, then what comes.

    What is gone already, or there already, is no error. A map's element whose key is there with
    another value is: the old one must go in the same change.
    """

    remove: tuple[Element, ...] = ()
    add: tuple[Element, ...] = ()
    remove_policies: tuple[PolicyChain, ...] = ()
    add_policies: tuple[PolicyChain, ...] = ()


def pack(*parts: bytes) -> bytes:
    """Return a key or value of several parts as registers hold them: each padded to 4 bytes."""
    return b"".join(part + bytes(-len(part) & 3) for part in parts)


def number(value: int) -> bytes:
    """Return a number as a key holds it: in the host's order, for nft(8) prints it so."""
    return value.to_bytes(4, sys.byteorder)
