"""Requests as values of the model, checked. All raise InvalidArgument for what cannot be meant."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd import checks
from nexus_netd.model import (
    EgressRule,
    HostPort,
    Limits,
    Link,
    Mode,
    NetworkSpec,
    Policy,
    Protocol,
    Publication,
)
from nexus_netd.operations.ports import Asked
from nexus_netd.records.networks import DEFAULT
from nexus_netd.rules.elements import MOST_BYTES, MOST_PACKETS
from nexus_rpc.errors import invalid_field
from nexus_rpc.ids import check_vm_id

if TYPE_CHECKING:
    from collections.abc import Collection

MOST_RULES = 256
MOST_LINK_PORTS = 64
MOST_HOST_PORTS = 64
DNS = ("8.8.8.8", "1.1.1.1")
LEAST_MTU, MOST_MTU = 1_280, 65_521
"""Below 1,280 Linux has no IPv6 on a link (RFC 8200); the other is a TAP's most."""

PROTOCOLS = {
    pb.PROTOCOL_UNSPECIFIED: Protocol.ANY,
    pb.PROTOCOL_TCP: Protocol.TCP,
    pb.PROTOCOL_UDP: Protocol.UDP,
    pb.PROTOCOL_ICMP: Protocol.ICMP,
}
MODES = {
    pb.EGRESS_MODE_OPEN: Mode.OPEN,
    pb.EGRESS_MODE_NONE: Mode.NONE,
    pb.EGRESS_MODE_RULES: Mode.RULES,
}
_WITH_PORTS = {Protocol.TCP, Protocol.UDP}
_CHANGEABLE = ("dns", "search", "host_ports", "default_policy", "default_limits")


def protocol(field: str, value: int) -> Protocol:
    """Return a protocol; one that is not given is any."""
    if value not in PROTOCOLS:
        raise invalid_field(field, value, "PROTOCOL_TCP, PROTOCOL_UDP or PROTOCOL_ICMP")
    return PROTOCOLS[pb.Protocol.ValueType(value)]


def service(field: str, value: int) -> Protocol:
    """Return TCP or UDP; what is not given is TCP."""
    found = protocol(field, value)
    if found is Protocol.ICMP:
        raise invalid_field(field, "PROTOCOL_ICMP", "PROTOCOL_TCP or PROTOCOL_UDP")
    return found or Protocol.TCP


def policy(field: str, message: pb.EgressPolicy) -> Policy | None:
    """Return a policy, None for one without a mode."""
    if not message.mode:
        if message.rules:
            raise invalid_field(f"{field}.mode", 0, "EGRESS_MODE_RULES, for the rules to count")
        return None
    if message.mode not in MODES:
        raise invalid_field(f"{field}.mode", message.mode, "one of EgressMode")
    mode = MODES[message.mode]
    if message.rules and mode is not Mode.RULES:
        raise invalid_field(
            f"{field}.rules", f"{len(message.rules)} rules", "none, but with EGRESS_MODE_RULES"
        )
    if len(message.rules) > MOST_RULES:
        raise invalid_field(
            f"{field}.rules", f"{len(message.rules)} rules", f"at most {MOST_RULES}"
        )
    rules = (_rule(f"{field}.rules[{n}]", rule) for n, rule in enumerate(message.rules))
    return Policy(mode, tuple(rules))


def limits(field: str, message: pb.Limits) -> Limits:
    """Return limits."""
    for name in ("egress_bytes", "ingress_bytes"):
        _check_rate(f"{field}.{name}", getattr(message, name), MOST_BYTES)
    for name in ("egress_packets", "ingress_packets"):
        _check_rate(f"{field}.{name}", getattr(message, name), MOST_PACKETS)
    return Limits(
        message.egress_bytes,
        message.ingress_bytes,
        message.egress_packets,
        message.ingress_packets,
        message.connections,
    )


def attach(request: pb.AttachPortRequest) -> Asked:
    """Return what a port is asked for with."""
    return Asked(
        check_vm_id("vm_id", request.vm_id),
        checks.network_name("network", request.network or DEFAULT),
        checks.ipv4("ipv4", request.ipv4) if request.ipv4 else None,
        policy("policy", request.policy),
        limits("limits", request.limits),
        checks.servers("upstream_dns", request.upstream_dns),
        checks.search("search", request.search),
    )


def network(message: pb.Network) -> NetworkSpec:
    """Return a new network; a bridge that is not named is ""."""
    mtu = message.mtu or 1_500
    if not LEAST_MTU <= mtu <= MOST_MTU:
        raise invalid_field("network.mtu", mtu, f"{LEAST_MTU:,} to {MOST_MTU:,} bytes")
    bridge, ipv6 = message.bridge, message.ipv6_subnet
    return NetworkSpec(
        name=checks.network_name("network.name", message.name),
        bridge=checks.bridge_name("network.bridge", bridge) if bridge else "",
        subnet=checks.subnet("network.subnet", message.subnet),
        ipv6=checks.ipv6_subnet("network.ipv6_subnet", ipv6) if ipv6 else None,
        dns=checks.servers("network.dns", message.dns) or DNS,
        search=checks.search("network.search", message.search),
        mtu=mtu,
        default_policy=policy("network.default_policy", message.default_policy) or Policy(),
        default_limits=limits("network.default_limits", message.default_limits),
        host_ports=_host_ports("network.host_ports", message.host_ports),
    )


def changed(before: NetworkSpec, message: pb.Network, clear: Collection[str]) -> NetworkSpec:
    """Return a network with what the message names, and with defaults for what is cleared."""
    for n, name in enumerate(clear):
        if name not in _CHANGEABLE:
            raise invalid_field(f"clear[{n}]", name, f"one of {', '.join(_CHANGEABLE)}")
    for name in ("bridge", "subnet", "ipv6_subnet", "mtu"):
        if getattr(message, name):
            raise invalid_field(
                f"network.{name}",
                getattr(message, name),
                "it cannot be changed; MigrateNetwork moves a network to another subnet",
            )
    asked = NetworkSpec(
        before.name,
        before.bridge,
        before.subnet,
        before.ipv6,
        checks.servers("network.dns", message.dns),
        checks.search("network.search", message.search),
        before.mtu,
        policy("network.default_policy", message.default_policy) or Policy(),
        limits("network.default_limits", message.default_limits),
        _host_ports("network.host_ports", message.host_ports),
    )
    fresh = NetworkSpec(before.name, before.bridge, before.subnet, dns=DNS)
    named = {
        "dns": bool(message.dns),
        "search": bool(message.search),
        "host_ports": bool(message.host_ports),
        "default_policy": bool(message.default_policy.mode),
        "default_limits": message.HasField("default_limits"),
    }

    def chosen(name: str) -> object:
        if named[name]:
            return getattr(asked, name)
        return getattr(fresh if name in clear else before, name)

    return replace(before, **{name: chosen(name) for name in _CHANGEABLE})  # type: ignore[arg-type]  # fields by name


def link(message: pb.Link) -> Link:
    """Return a link."""
    source = check_vm_id("link.from_vm_id", message.from_vm_id)
    target = check_vm_id("link.to_vm_id", message.to_vm_id)
    if source == target:
        raise invalid_field("link.to_vm_id", target, "another VM: a VM reaches itself")
    found = protocol("link.protocol", message.protocol)
    if message.ports and found not in _WITH_PORTS:
        raise invalid_field("link.ports", list(message.ports), "none, but with TCP or UDP")
    if len(message.ports) > MOST_LINK_PORTS:
        raise invalid_field(
            "link.ports", f"{len(message.ports)} ports", f"at most {MOST_LINK_PORTS}"
        )
    ports = {checks.port(f"link.ports[{n}]", one) for n, one in enumerate(message.ports)}
    return Link(source, target, found, tuple(sorted(ports)))


def publication(message: pb.Publication) -> Publication:
    """Return what to forward, with defaults filled in."""
    host_port = checks.port("publication.host_port", message.host_port)
    return Publication(
        check_vm_id("publication.vm_id", message.vm_id),
        checks.address("publication.host_ip", message.host_ip or "127.0.0.1"),
        host_port,
        checks.port("publication.guest_port", message.guest_port or host_port),
        service("publication.protocol", message.protocol),
    )


def _rule(field: str, message: pb.EgressRule) -> EgressRule:
    if message.action not in (pb.ACTION_UNSPECIFIED, pb.ACTION_ALLOW, pb.ACTION_DENY):
        raise invalid_field(f"{field}.action", message.action, "ACTION_ALLOW or ACTION_DENY")
    allow = message.action != pb.ACTION_DENY
    destination = message.WhichOneof("destination")
    domain = ""
    if destination == "domain":
        if not allow:
            raise invalid_field(f"{field}.domain", message.domain, "only with ACTION_ALLOW")
        domain = checks.domain(f"{field}.domain", message.domain, pattern=True)
    found = protocol(f"{field}.protocol", message.protocol)
    return EgressRule(
        allow,
        checks.cidr(f"{field}.cidr", message.cidr) if destination == "cidr" else None,
        domain,
        found,
        _ports(field, message, found),
    )


def _ports(field: str, message: pb.EgressRule, found: Protocol) -> tuple[int, int] | None:
    if not message.first_port and not message.last_port:
        return None
    if found not in _WITH_PORTS:
        raise invalid_field(
            f"{field}.first_port", message.first_port, "no ports, but with TCP or UDP"
        )
    first = checks.port(f"{field}.first_port", message.first_port)
    last = checks.port(f"{field}.last_port", message.last_port or first)
    if last < first:
        raise invalid_field(f"{field}.last_port", last, f"at least first_port, {first}")
    return (first, last)


def _host_ports(field: str, messages: Collection[pb.HostPort]) -> tuple[HostPort, ...]:
    if len(messages) > MOST_HOST_PORTS:
        raise invalid_field(field, f"{len(messages)} ports", f"at most {MOST_HOST_PORTS}")
    found = (
        HostPort(
            service(f"{field}[{n}].protocol", one.protocol),
            checks.port(f"{field}[{n}].port", one.port),
        )
        for n, one in enumerate(messages)
    )
    return tuple(sorted(set(found), key=lambda one: (one.protocol, one.port)))


def _check_rate(field: str, value: int, most: int) -> None:
    if value > most:
        raise invalid_field(field, value, f"at most {most:,} a second; 0 for none")
