"""What would become of a connection from a guest: the decision of our tables, and why.

The order is the tables': the bridge, routing, the number of connections, the host or another guest,
metadata, the policy. Nothing is asked of the kernel here; `inquiry` gathers the facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.driver import resolves_any_name
from nexus_netd.model import HostPort, Mode, Protocol
from nexus_netd.operations.pins import slots as slots_of
from nexus_netd.rules import policy, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nexus_netd.model import Address, EgressRule, Guest, Link, NetworkSpec, Pin
    from nexus_netd.view import View

NEXUS = ".nexus"
"""Where the names of VMs end."""

_DNS = 53
_WITH_PORTS = frozenset({Protocol.TCP, Protocol.UDP})


@dataclass(frozen=True)
class Facts:
    """What is known of a guest.

    `pins` are the live ones, `local` those of the addresses in question that are the host's own.
    `connections` counts what each address has open, `name` tells for what name the guest was last
    given an address, be it over or not.
    """

    view: View
    guest: Guest
    pins: Collection[Pin]
    local: Collection[Address]
    connections: Mapping[Address, int]
    name: Callable[[Address], str]


@dataclass(frozen=True)
class Explanation:
    """Whether it would pass, by which rule (of `nexus_netd.rules.reasons`), and why, for people."""

    allowed: bool
    rule: str
    why: str
    egress_rule: EgressRule | None = None
    pins: tuple[Pin, ...] = ()


def explain(facts: Facts, destination: Address | str, protocol: Protocol, port: int) -> Explanation:
    """Return what would become of it; `destination` is an address, or a name in lower case."""
    if not isinstance(destination, str):
        return _of_address(facts, destination, protocol, port)
    if destination.endswith(NEXUS):
        return _of_vm_name(facts, destination.removesuffix(NEXUS), protocol, port)
    return _of_name(facts, destination, protocol, port)


def concerned(pins: Collection[Pin], destination: Address | str) -> Collection[Address]:
    """Return the addresses that the destination stands for, of those that are pinned."""
    if isinstance(destination, str):
        return {pin.address for pin in pins if pin.domain == destination}
    return {destination}


def _of_address(facts: Facts, address: Address, protocol: Protocol, port: int) -> Explanation:
    before = _before_routing(facts, address)
    if before is not None:
        return before
    mine = _own_address(facts.guest, address.version)
    if facts.connections.get(mine, 0) >= facts.guest.limits.connections:
        return _told(reasons.CONNECTIONS, address, f"({facts.guest.limits.connections:,})")
    if address in facts.local or _is_gateway(facts.view, address):
        return _to_host(facts, address, protocol, port)
    other = facts.view.at_address(address)
    if other is not None:
        return _to_other(facts, other, address, protocol, port)
    return _by_policy(facts, address, protocol, port)


def _before_routing(facts: Facts, address: Address) -> Explanation | None:
    """Return the refusal of what leaves no bridge, or has no route."""
    if address.version == 6 and facts.guest.ipv6 is None:
        return _told(reasons.NO_ADDRESS, address)
    if address.is_multicast or address.is_loopback or address.is_unspecified:
        return _told(reasons.NO_ADDRESS, address)
    if address.version == 4 and address.packed[0] in {0, *range(224, 256)}:
        return _told(reasons.NO_ADDRESS, address)
    for spec in facts.view.networks.values():
        inside = address in (spec.subnet.network if address.version == 4 else spec.ipv6 or ())
        if inside and address not in _gateways(spec) and facts.view.at_address(address) is None:
            return _told(reasons.FOREIGN_NETWORK, address)
    return None


def _to_host(facts: Facts, address: Address, protocol: Protocol, port: int) -> Explanation:
    guest = facts.guest
    if address not in {guest.gateway, guest.ipv6_gateway}:
        return _told(
            reasons.HOST,
            address,
            way_out=f"what host ports allow is reached at the VM's own gateway, {guest.gateway}",
        )
    if port == _DNS and protocol in _WITH_PORTS:
        return _told(reasons.DNS, address)
    if protocol is Protocol.ICMP:
        return _told(reasons.PING, address)
    network = facts.view.networks[facts.view.ports[guest.vm_id].network]
    if HostPort(protocol, port) in network.host_ports:
        return _told(reasons.HOST_PORT, address)
    return _told(reasons.HOST, address)


def _to_other(
    facts: Facts, other: str, address: Address, protocol: Protocol, port: int
) -> Explanation:
    if other == facts.guest.vm_id:
        return _told(
            reasons.OTHER_GUEST, address, "(its own: what it sends there stays within the VM)"
        )
    whose = f"of VM {facts.view.ports[other].vm_name or other}"
    links = [one for one in facts.view.links_from(facts.guest.vm_id) if one.to_vm_id == other]
    if any(_allows(link, protocol, port) for link in links):
        return _told(reasons.LINK, f"{address} {whose}")
    if links:
        return _told(
            reasons.OTHER_GUEST,
            f"{address} {whose}",
            "(the links that lead there are for other ports or protocols)",
        )
    return _told(reasons.OTHER_GUEST, f"{address} {whose}")


def _by_policy(facts: Facts, address: Address, protocol: Protocol, port: int) -> Explanation:
    rules = facts.guest.policy.rules
    live = {pin.slot: pin for pin in facts.pins if pin.address == address}
    decision = policy.decide(
        facts.guest.policy,
        address,
        policy.wire(protocol, address.version)[0],
        port,
        live.__contains__,
    )
    if decision.slot is not None:
        return _by_rule(rules, decision.slot, address, live.get(decision.slot))
    name = facts.name(address)
    if decision.rule != reasons.NO_RULE or not name:
        return _told(decision.rule, address)
    subject = f"{address}, given as {name},"
    if not live and slots_of(facts.guest.policy, name):
        return _told(decision.rule, subject, "any more", way_out="look the name up again")
    return _told(decision.rule, subject, "for this port and protocol")


def _by_rule(
    rules: tuple[EgressRule, ...], slot: int, subject: Address | str, pin: Pin | None = None
) -> Explanation:
    rule = rules[slot]
    does = "is allowed" if rule.allow else "is refused"
    given = f", given as {pin.domain}," if pin is not None and rule.domain else ""
    why = f"{subject}{given} {does} by rule {slot}: {_shown(rule)}"
    if not rule.allow:
        why += f"; {reasons.REASONS[reasons.RULE].way_out}"
    return Explanation(rule.allow, f"{reasons.RULE} {slot}", why, rule)


def _of_vm_name(facts: Facts, name: str, protocol: Protocol, port: int) -> Explanation:
    """Explain "NAME.nexus", which the resolver answers to itself and to those with a link to it."""
    view, mine = facts.view, facts.guest.vm_id
    found = next((one for one in view.ports.values() if name and one.vm_name == name), None)
    if found is None or (
        found.vm_id != mine and all(link.to_vm_id != found.vm_id for link in view.links_from(mine))
    ):
        return Explanation(
            False,
            reasons.OTHER_GUEST,
            f"the resolver refuses {name}{NEXUS}: there is no link to a VM of that name; "
            f"{reasons.REASONS[reasons.OTHER_GUEST].way_out}",
        )
    return _of_address(facts, view.guests[found.vm_id].ipv4, protocol, port)


def _of_name(facts: Facts, name: str, protocol: Protocol, port: int) -> Explanation:
    wanted = facts.guest.policy
    slots = slots_of(wanted, name)
    if wanted.mode is Mode.NONE:
        return _told(reasons.NONE, f"the resolver refuses {name}")
    if not slots and not resolves_any_name(wanted):
        says = reasons.REASONS[reasons.NAME]
        return Explanation(
            False, reasons.NO_RULE, f"the resolver refuses {name}: {says.says}; {says.way_out}"
        )
    mine = tuple(pin for pin in facts.pins if pin.domain == name)
    if not mine:
        return _not_given(facts, name, slots, protocol, port)
    by_address = {pin.address: _of_address(facts, pin.address, protocol, port) for pin in mine}
    # A client tries one address after the other.
    best = next((one for one in by_address.values() if one.allowed), None)
    best = best or next(iter(by_address.values()))
    others = "".join(
        f"; but {one.why}" for one in by_address.values() if one.allowed is not best.allowed
    )
    return Explanation(best.allowed, best.rule, best.why + others, best.egress_rule, mine)


def _not_given(
    facts: Facts, name: str, slots: Collection[int], protocol: Protocol, port: int
) -> Explanation:
    """Explain a name that the resolver answers, and has not lately."""
    wanted = facts.guest.policy
    if wanted.mode is Mode.OPEN:
        return Explanation(
            True,
            reasons.OPEN,
            f"the resolver answers {name}, as every name; {reasons.REASONS[reasons.OPEN].says}, "
            "but for metadata, the host and other VMs",
        )
    by_address: list[int] = []
    for slot, rule in enumerate(wanted.rules):
        if rule.protocol not in {Protocol.ANY, protocol} or not _has_port(rule, port):
            continue
        if rule.cidr is not None:
            by_address.append(slot)
        elif slot in slots or not rule.domain:
            found = _by_rule(wanted.rules, slot, name)
            break
    else:
        found = _told(reasons.NO_RULE, name, "for this port and protocol")
    why = f"the resolver answers it, and has given no address yet that is known; then {found.why}"
    if by_address:
        why += f", unless its address is one that rule {by_address[0]} decides on"
    return Explanation(found.allowed, found.rule, why, found.egress_rule)


def _told(rule: str, subject: Address | str, detail: str = "", *, way_out: str = "") -> Explanation:
    reason = reasons.of(rule)
    why = f"{subject}: {reason.says}"
    if detail:
        why += f" {detail}"
    if reason.way_out:
        why += f"; {way_out or reason.way_out}"
    return Explanation(not reason.way_out, rule, why)


def _own_address(guest: Guest, version: int) -> Address:
    return guest.ipv6 if version == 6 and guest.ipv6 is not None else guest.ipv4


def _gateways(spec: NetworkSpec) -> tuple[Address, ...]:
    return (spec.gateway,) if spec.ipv6_gateway is None else (spec.gateway, spec.ipv6_gateway)


def _is_gateway(view: View, address: Address) -> bool:
    return any(address in _gateways(spec) for spec in view.networks.values())


def _allows(link: Link, protocol: Protocol, port: int) -> bool:
    if link.protocol not in {Protocol.ANY, protocol}:
        return False
    return not link.ports or port in link.ports


def _has_port(rule: EgressRule, port: int) -> bool:
    return rule.ports is None or rule.ports[0] <= port <= rule.ports[1]


def _shown(rule: EgressRule) -> str:
    """Return a rule as people write it: "allow pypi.org tcp/443"."""
    parts = ["allow" if rule.allow else "deny", rule.domain or str(rule.cidr or "anywhere")]
    if rule.protocol is not Protocol.ANY:
        first, last = rule.ports or (0, 0)
        ports = "" if rule.ports is None else f"/{first}" + (f"-{last}" if last != first else "")
        parts.append(rule.protocol.name.lower() + ports)
    return " ".join(parts)
