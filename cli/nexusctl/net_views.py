"""What is shown of the network: one dictionary each, for --json and for people alike.

Keys and values are stable. A policy is as `net policy --file` takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexusctl import policies, protocols, rules
from nexusctl.views import time

if TYPE_CHECKING:
    from nexus.netd.v1 import netd_pb2


def network(network: netd_pb2.Network) -> dict[str, Any]:
    """Return a network."""
    return {
        "name": network.name,
        "bridge": network.bridge,
        "subnet": network.subnet,
        "gateway": network.gateway,
        "ipv6_subnet": network.ipv6_subnet,
        "ipv6_gateway": network.ipv6_gateway,
        "dns": list(network.dns),
        "search": list(network.search),
        "mtu": network.mtu,
        "default_policy": policy(network.default_policy),
        "default_limits": limits(network.default_limits),
        "host_ports": [host_port(port) for port in network.host_ports],
        "ports": network.ports,
        "warnings": list(network.warnings),
    }


def host_port(port: netd_pb2.HostPort) -> str:
    """Return a service of the host, "53/udp"."""
    return f"{port.port}/{protocols.word(port.protocol)}"


def port(port: netd_pb2.Port) -> dict[str, Any]:
    """Return a VM's place on a network; counters only where they were asked for."""
    counters = port.counters if port.HasField("counters") else None
    return {
        "vm_id": port.vm_id,
        "vm_name": port.vm_name,
        "network": port.network,
        "tap": port.tap,
        "bridge": port.bridge,
        "mac": port.mac,
        "ipv4": port.ipv4,
        "gateway": port.gateway,
        "ipv6": port.ipv6,
        "ipv6_gateway": port.ipv6_gateway,
        "dns": list(port.dns),
        "upstream_dns": list(port.upstream_dns),
        "search": list(port.search),
        "mtu": port.mtu,
        "create_time": time(port, "create_time"),
        "policy": policy(port.policy) | {"own": port.own_policy},
        "limits": limits(port.limits),
        "counters": _fields(counters) if counters is not None else None,
    }


def policy(policy: netd_pb2.EgressPolicy) -> dict[str, Any]:
    """Return a policy. An unset one is the default: of a network open, of a port inherited."""
    return {
        "mode": policies.WORDS.get(policy.mode, str(policy.mode)),
        "rules": [{rules.action(rule): rules.text(rule)} for rule in policy.rules],
    }


def policy_lines(shown: dict[str, Any]) -> list[str]:
    """Return what `policy` gave, in words."""
    if shown["mode"] != "rules":
        return [shown["mode"]]
    return [f"{action} {text}" for rule in shown["rules"] for action, text in rule.items()]


def limits(limits: netd_pb2.Limits) -> dict[str, int]:
    """Return limits, in bytes, packets and connections; 0 is the default."""
    return _fields(limits)


def link(link: netd_pb2.Link) -> dict[str, Any]:
    """Return a link."""
    return {
        "from_vm_id": link.from_vm_id,
        "to_vm_id": link.to_vm_id,
        "protocol": protocols.word(link.protocol),
        "ports": list(link.ports),
    }


def publication(publication: netd_pb2.Publication) -> dict[str, Any]:
    """Return what is forwarded."""
    return {
        "vm_id": publication.vm_id,
        "host_ip": publication.host_ip,
        "host_port": publication.host_port,
        "guest_port": publication.guest_port,
        "protocol": protocols.word(publication.protocol),
    }


def flow(answer: netd_pb2.ExplainFlowResponse) -> dict[str, Any]:
    """Return what would become of a connection."""
    rule = answer.egress_rule if answer.HasField("egress_rule") else None
    return {
        "allowed": answer.allowed,
        "rule": answer.rule,
        "explanation": answer.explanation,
        "egress_rule": {rules.action(rule): rules.text(rule)} if rule is not None else None,
        "pins": [
            {"domain": pin.domain, "address": pin.address, "expire_time": time(pin, "expire_time")}
            for pin in answer.pins
        ],
        "denied_packets": answer.denied_packets,
        "connections": answer.connections,
    }


def denial(denial: netd_pb2.Denial) -> dict[str, Any]:
    """Return what a VM was refused."""
    return {
        "time": time(denial, "time"),
        "vm_id": denial.vm_id,
        "rule": denial.rule,
        "protocol": protocols.word(denial.protocol) if denial.protocol else "",
        "address": denial.address,
        "port": denial.port,
        "domain": denial.domain,
        "count": denial.count,
    }


def event(event: netd_pb2.WatchNetworkResponse) -> dict[str, Any]:
    """Return what happened to a network or a port."""
    return {
        "time": time(event, "time"),
        "what": event.what,
        "vm_id": event.vm_id,
        "network": event.network,
        "details": event.details,
        "missed": event.missed,
    }


def _fields(message: netd_pb2.Limits | netd_pb2.PortCounters) -> dict[str, int]:
    """Return all fields, which are numbers, those that are 0 as well."""
    return {field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields}
