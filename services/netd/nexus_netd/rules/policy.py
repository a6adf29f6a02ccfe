"""What a guest may reach: the plain model, and the same as a chain of nftables rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from nexus_netd.model import Mode, Protocol
from nexus_netd.rules import expressions as x
from nexus_netd.rules import reasons
from nexus_netd.rules.expressions import ACCEPT, goto, jump
from nexus_netd.rules.ruleset import POLICY, Chain, Element, Family, PolicyChain, Rule, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from nexus_netd.model import Address, Cidr, EgressRule, Policy
    from nexus_netd.rules.expressions import Expressions, Version

OPEN, NONE = 1, 2
"""Numbers of the policies without rules; all others have higher ones."""

METADATA: tuple[Cidr, ...] = tuple(
    ip_network(cidr)
    for cidr in (
        "169.254.0.0/16",  # RFC 3927; AWS, Azure, Google, OpenStack and more: 169.254.169.254
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure
        "fe80::/10",  # OpenStack: fe80::a9fe:a9fe
        "fd00:ec2::254/128",  # AWS
    )
)
"""Addresses where clouds tell machines their secrets."""

_ICMP = {4: 1, 6: 58}


@dataclass(frozen=True)
class Decision:
    """What a policy says: the name is of `reasons`, the slot is the rule's, if any."""

    allowed: bool
    rule: str
    slot: int | None = None


def decide(
    policy: Policy,
    destination: Address,
    protocol: int,
    port: int,
    pinned: Callable[[int], bool],
) -> Decision:
    """Return what the policy says to a packet that opens a connection.

    `protocol` is its number in the packet, 58 for ICMPv6. `pinned` tells of a slot whether the
    guest was given the destination for that rule's domain.
    """
    if policy.mode is Mode.NONE:
        return Decision(False, reasons.NONE)

    def matches(slot: int) -> bool:
        rule = policy.rules[slot]
        return _matches(rule, destination, protocol, port) and (not rule.domain or pinned(slot))

    for slot in filter(matches, exceptions(policy)):
        return _decision(policy, slot)
    if any(destination in cidr for cidr in METADATA):
        return Decision(False, reasons.METADATA)
    if policy.mode is Mode.OPEN:
        return Decision(True, reasons.OPEN)
    for slot in filter(matches, range(len(policy.rules))):
        return _decision(policy, slot)
    return Decision(False, reasons.NO_RULE)


def exceptions(policy: Policy) -> tuple[int, ...]:
    """Return the slots of the rules that may speak of metadata: those whose cidr lies within it."""
    if policy.mode is not Mode.RULES:
        return ()
    return tuple(slot for slot, rule in enumerate(policy.rules) if _of_metadata(rule))


def wire(protocol: Protocol, version: int) -> bytes:
    """Return a protocol as packets of that IP version name it."""
    return bytes([_ICMP[version] if protocol is Protocol.ICMP else protocol])


def chain(number_: int, policy: Policy) -> PolicyChain:
    """Return the chain of a policy with rules, whose number is neither OPEN nor NONE.

    A rule that allows is one rule, or one for each version of IP where it must be; one that refuses
    is told of before. Their order is the policy's, but for metadata, which comes first.
    """
    name = f"{POLICY}{number_}"
    first = exceptions(policy)
    rows: list[tuple[str, Expressions]] = []
    for slot in first:
        rows += _compiled(slot, policy.rules[slot])
    rows.append(("no other metadata", jump("metadata")))
    for slot, rule in enumerate(policy.rules):
        if slot not in first:
            rows += _compiled(slot, rule)
    rows.append(("nothing else", goto("refuse-no-rule")))
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:16]
    rows[-1] = (f"nothing else ({digest})", rows[-1][1])
    return PolicyChain(
        Chain(name),
        tuple(Rule(name, comment, expressions) for comment, expressions in rows),
        Element(Family.INET, "policies", number(number_), name),
    )


def _of_metadata(rule: EgressRule) -> bool:
    cidr = rule.cidr
    return cidr is not None and any(
        cidr.version == one.version
        and cidr.prefixlen >= one.prefixlen
        and cidr.network_address in one
        for one in METADATA
    )


def _decision(policy: Policy, slot: int) -> Decision:
    return Decision(policy.rules[slot].allow, f"{reasons.RULE} {slot}", slot)


def _matches(rule: EgressRule, destination: Address, protocol: int, port: int) -> bool:
    if rule.cidr is not None and destination not in rule.cidr:
        return False
    if rule.protocol is not Protocol.ANY and wire(rule.protocol, destination.version) != bytes(
        [protocol]
    ):
        return False
    return rule.ports is None or rule.ports[0] <= port <= rule.ports[1]


def _compiled(slot: int, rule: EgressRule) -> list[tuple[str, Expressions]]:
    name = f"{reasons.RULE} {slot}"
    if rule.allow:
        return [(name, (*match, *ACCEPT)) for match in _matchers(slot, rule, x.VERSIONS)]
    # Apart from the refusal: a limit that is used up ends its rule.
    told = [
        (
            f"{name}, told",
            (
                *match,
                *x.among(f"events{version}", version.source),
                *x.log(reasons.NFLOG_GROUP, reasons.PREFIX + name),
            ),
        )
        for version in x.VERSIONS
        for match in _matchers(slot, rule, (version,))
    ]
    refused = [(name, (*match, *goto("refuse"))) for match in _matchers(slot, rule, x.VERSIONS)]
    return [*told, *refused]


def _matchers(slot: int, rule: EgressRule, versions: tuple[Version, ...]) -> list[Expressions]:
    """Return what matches the rule: one for all the versions of IP, where it does not tell them."""
    if rule.cidr is not None:
        versions = tuple(one for one in versions if one.number == rule.cidr.version)
    if len(versions) > 1 and not rule.domain and rule.protocol is not Protocol.ICMP:
        return [_service(rule, None)]
    return [
        (
            *version.this,
            *(x.within(version.destination, rule.cidr) if rule.cidr is not None else ()),
            *_service(rule, version),
            *(_pinned(slot, version) if rule.domain else ()),
        )
        for version in versions
    ]


def _pinned(slot: int, version: Version) -> Expressions:
    return x.among(f"pins{version}", version.source, version.destination, value=number(slot))


def _service(rule: EgressRule, version: Version | None) -> Expressions:
    parts: list[Expressions] = []
    if rule.protocol is not Protocol.ANY:
        parts.append(x.equals(x.L4PROTO, wire(rule.protocol, version.number if version else 4)))
    if rule.ports is not None:
        first, last = (port.to_bytes(2, "big") for port in rule.ports)
        parts.append(x.between(x.DESTINATION_PORT, first, last))
    return tuple(expression for part in parts for expression in part)
