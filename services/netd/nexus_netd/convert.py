"""Values of the model as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.feed import Missed
from nexus_netd.requested import MODES, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus_netd.feed import Happening
    from nexus_netd.kernel import Counters
    from nexus_netd.model import EgressRule, Limits, Link, NetworkSpec, Pin, Policy, Publication
    from nexus_netd.reports.denials import Denial
    from nexus_netd.view import View

_PROTOCOLS = {int(value): key for key, value in PROTOCOLS.items()} | {58: pb.PROTOCOL_ICMP}
_MODES = {value: key for key, value in MODES.items()}


def timestamp(seconds: float) -> Timestamp:
    """Return a time, given in Unix seconds."""
    found = Timestamp()
    found.FromNanoseconds(round(seconds * 1e9))
    return found


def protocol(number: int) -> pb.Protocol.ValueType:
    """Return a protocol by its number in a packet; not given where it is another."""
    return _PROTOCOLS.get(number, pb.PROTOCOL_UNSPECIFIED)


def network(spec: NetworkSpec, ports: int, warnings: Iterable[str] = ()) -> pb.Network:
    """Return a network with its number of ports."""
    return pb.Network(
        name=spec.name,
        bridge=spec.bridge,
        subnet=str(spec.subnet.network),
        gateway=str(spec.gateway),
        ipv6_subnet=str(spec.ipv6 or ""),
        ipv6_gateway=str(spec.ipv6_gateway or ""),
        dns=spec.dns,
        search=spec.search,
        mtu=spec.mtu,
        default_policy=policy(spec.default_policy),
        default_limits=limits(spec.default_limits),
        host_ports=[
            pb.HostPort(protocol=protocol(one.protocol), port=one.port) for one in spec.host_ports
        ],
        ports=ports,
        warnings=warnings,
    )


def port(view: View, vm_id: str) -> pb.Port:
    """Return a VM's port with what holds for it."""
    lease, guest = view.ports[vm_id], view.guests[vm_id]
    spec = view.networks[lease.network]
    return pb.Port(
        vm_id=vm_id,
        tap=guest.tap,
        mac=guest.mac,
        ipv4=str(spec.subnet.interface(lease.host)),
        gateway=str(guest.gateway),
        dns=[str(guest.gateway)],
        create_time=timestamp(lease.created),
        network=lease.network,
        bridge=guest.bridge,
        ipv6=f"{guest.ipv6}/128" if guest.ipv6 else "",
        ipv6_gateway=str(guest.ipv6_gateway or ""),
        search=lease.search or spec.search,
        policy=policy(guest.policy),
        own_policy=lease.policy is not None,
        limits=limits(guest.limits),
        vm_name=lease.vm_name,
        upstream_dns=lease.upstream_dns,
        mtu=guest.mtu,
    )


def counters(through: Counters, denied: int, connections: int) -> pb.PortCounters:
    """Return what went through a port."""
    return pb.PortCounters(
        egress_bytes=through.sent_bytes,
        egress_packets=through.sent_packets,
        ingress_bytes=through.received_bytes,
        ingress_packets=through.received_packets,
        dropped_packets=through.dropped_packets,
        denied_packets=denied,
        connections=connections,
    )


def policy(value: Policy) -> pb.EgressPolicy:
    """Return a policy."""
    return pb.EgressPolicy(mode=_MODES[value.mode], rules=map(rule, value.rules))


def rule(value: EgressRule) -> pb.EgressRule:
    """Return a rule of a policy."""
    first, last = value.ports or (0, 0)
    found = pb.EgressRule(
        action=pb.ACTION_ALLOW if value.allow else pb.ACTION_DENY,
        protocol=protocol(value.protocol),
        first_port=first,
        last_port=last,
    )
    if value.cidr is not None:
        found.cidr = str(value.cidr)
    if value.domain:
        found.domain = value.domain
    return found


def limits(value: Limits) -> pb.Limits:
    """Return limits."""
    return pb.Limits(
        egress_bytes=value.egress_bytes,
        ingress_bytes=value.ingress_bytes,
        egress_packets=value.egress_packets,
        ingress_packets=value.ingress_packets,
        connections=value.connections,
    )


def link(value: Link) -> pb.Link:
    """Return a link."""
    return pb.Link(
        from_vm_id=value.from_vm_id,
        to_vm_id=value.to_vm_id,
        protocol=protocol(value.protocol),
        ports=value.ports,
    )


def publication(value: Publication) -> pb.Publication:
    """Return a publication."""
    return pb.Publication(
        vm_id=value.vm_id,
        host_ip=str(value.host_ip),
        host_port=value.host_port,
        guest_port=value.guest_port,
        protocol=protocol(value.protocol),
    )


def pin(value: Pin) -> pb.Pin:
    """Return a pin."""
    return pb.Pin(
        domain=value.domain, address=str(value.address), expire_time=timestamp(value.expires)
    )


def denial(value: Denial | Missed) -> pb.WatchDenialsResponse:
    """Return a denial, or how many were lost."""
    if isinstance(value, Missed):
        return pb.WatchDenialsResponse(missed=value.count)
    return pb.WatchDenialsResponse(
        denial=pb.Denial(
            time=timestamp(value.time),
            vm_id=value.vm_id,
            rule=value.rule,
            protocol=protocol(value.protocol),
            address=str(value.address or ""),
            port=value.port,
            domain=value.domain,
            count=value.count,
        )
    )


def happening(value: Happening | Missed) -> pb.WatchNetworkResponse:
    """Return what happened, or how much was lost."""
    if isinstance(value, Missed):
        return pb.WatchNetworkResponse(missed=value.count)
    return pb.WatchNetworkResponse(
        time=timestamp(value.time),
        what=value.what,
        vm_id=value.vm_id,
        network=value.network,
        details=value.details,
    )
