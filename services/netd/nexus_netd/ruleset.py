"""nftables rulesets as data: expressions, rules, chains, sets and their elements.

`nexus_netd.nft` writes them to the kernel and reads them back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

NAME = "nexus"
"""Our tables' name, in each family."""

Expression = tuple[str, tuple[tuple[str, Any], ...]]
"""An expression of nftables: its name, and its attributes (linux/netfilter/nf_tables.h)."""


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
    """A set or map that elements go into.

    `key` are the lengths of its parts in bytes, unpadded. `data` is the length of a map's values, or
    "verdict". `state` is the expression that each element carries with values of its own
    ("counter", "limit", "connlimit").
    """

    name: str
    key: tuple[int, ...]
    data: int | str | None = None
    state: str = ""
    timeout: bool = False
    interval: bool = False


@dataclass(frozen=True)
class Element:
    """An element of one of our sets. Equal means: the same place, the same value.

    `key` is padded as the kernel wants it: each part to 4 bytes. `data` is a map's value: bytes, or
    the name of the chain to go to. `state` are its own expressions, with their parameters.
    `timeout` is in milliseconds; 0: none.
    """

    family: Family
    set: str
    key: bytes
    data: bytes | str | None = None
    state: tuple[Expression, ...] = ()
    timeout: int = field(default=0, compare=False)


@dataclass(frozen=True)
class PolicyChain:
    """One policy's chain in "inet nexus", and the element that leads to it. `digest` tells its rules."""

    chain: Chain
    rules: tuple[Rule, ...]
    element: Element


@dataclass(frozen=True)
class Skeleton:
    """One table's chains, rules and sets: all that does not depend on networks and ports.

    `comment` holds the digest of everything in it.
    """

    family: Family
    comment: str
    chains: tuple[Chain, ...]
    rules: tuple[Rule, ...]
    sets: tuple[Set, ...]


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
    """One transaction: first what goes, then what comes. What is gone already is no error."""

    remove: tuple[Element, ...] = ()
    add: tuple[Element, ...] = ()
    remove_policies: tuple[PolicyChain, ...] = ()
    add_policies: tuple[PolicyChain, ...] = ()
