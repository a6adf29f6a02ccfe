"""Our tables, "bridge nexus" and "inet nexus", but for what depends on networks and ports.

What a guest sends meets, in this order, where its path leads:

    bridge  guard       its own MAC and addresses, plain IP for the gateway      (`frames`)
    bridge  reserved    nothing that switches say to each other                  (`frames`)
    bridge  between     nothing from port to port                                (`frames`)
    inet    prerouting  DNS to a gateway goes to the resolver                    (`packets`)
    inet    input       DNS, ping, host ports; nothing else of the host          (`packets`)
    inet    forward     links to other guests; the policy to the outside         (`packets`)
    inet    postrouting by an address of the host                                (`packets`)

And to it: publications and answers, nothing else (`packets`), at its rates (`frames`). Each port is
elements of the sets (`elements`), each policy a chain of "inet nexus" (`policy`).

Frames and packets that are neither from nor to a guest meet no verdict but accept, which overrides
no drop of another table (nft(8), "verdict").
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from nexus_netd.rules import frames, packets, reasons
from nexus_netd.rules.ruleset import Chain, Element, Family, Rule, Set, Skeleton

if TYPE_CHECKING:
    from collections.abc import Iterable

NFLOG_GROUP = reasons.NFLOG_GROUP
RESOLVER_PORT = packets.RESOLVER_PORT


def _skeleton(
    family: Family,
    bases: Iterable[Chain],
    rules: tuple[Rule, ...],
    sets: tuple[Set, ...],
    elements: tuple[Element, ...] = (),
) -> Skeleton:
    named = {chain.name: chain for chain in bases}
    chains = tuple(
        (named | {r.chain: Chain(r.chain) for r in rules if r.chain not in named}).values()
    )
    # The repr of these is all of them: names, numbers and bytes.
    digest = hashlib.sha256(repr((chains, rules, sets, elements)).encode()).hexdigest()
    return Skeleton(family, f"nexus-netd {digest[:16]}", chains, rules, sets, elements)


_SKELETONS = (
    _skeleton(Family.BRIDGE, frames.HOOKS, frames.RULES, frames.SETS),
    _skeleton(Family.INET, packets.HOOKS, packets.RULES, packets.SETS, packets.ELEMENTS),
)


def skeletons() -> tuple[Skeleton, Skeleton]:
    """Return the two tables: of family bridge, and of family inet."""
    return _SKELETONS
