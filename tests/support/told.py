"""What a netd tells over gRPC of all that it keeps, and the same as the values that it works with.

The conversion is our own, so that it is none of the servicer's that vouches for itself.
"""

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_network

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd import model
from nexus_netd.subnet import Subnet

_PAGE = 1_000
_PROTOCOLS = {
    pb.PROTOCOL_UNSPECIFIED: model.Protocol.ANY,
    pb.PROTOCOL_TCP: model.Protocol.TCP,
    pb.PROTOCOL_UDP: model.Protocol.UDP,
    pb.PROTOCOL_ICMP: model.Protocol.ICMP,
}
_MODES = {
    pb.EGRESS_MODE_OPEN: model.Mode.OPEN,
    pb.EGRESS_MODE_NONE: model.Mode.NONE,
    pb.EGRESS_MODE_RULES: model.Mode.RULES,
}


@dataclass(frozen=True)
class Told:
    """Everything: networks by name, ports by VM, links and publications."""

    networks: dict
    ports: dict
    links: list
    publications: list


async def ask(stub):
    """Return everything that netd tells."""
    networks = (await stub.ListNetworks(pb.ListNetworksRequest())).networks
    ports = await _all(stub.ListPorts, pb.ListPortsRequest, "ports")
    links = await _all(stub.ListLinks, pb.ListLinksRequest, "links")
    publications = await _all(stub.ListPublications, pb.ListPublicationsRequest, "publications")
    told = Told(
        {network.name: network for network in networks},
        {port.vm_id: port for port in ports},
        links,
        publications,
    )
    assert len(told.ports) == len(ports), "a VM has two ports"
    return told


async def _all(method, request, field):
    found, token = [], ""
    while True:
        answer = await method(request(page_size=_PAGE, page_token=token))
        found += getattr(answer, field)
        token = answer.next_page_token
        if not token:
            return found


def policy(message):
    return model.Policy(_MODES[message.mode], tuple(_rule(rule) for rule in message.rules))


def _rule(message):
    ports = None
    if message.first_port:
        ports = (message.first_port, message.last_port or message.first_port)
    return model.EgressRule(
        message.action != pb.ACTION_DENY,
        ip_network(message.cidr) if message.cidr else None,
        message.domain,
        _PROTOCOLS[message.protocol],
        ports,
    )


def limits(message):
    return model.Limits(
        message.egress_bytes,
        message.ingress_bytes,
        message.egress_packets,
        message.ingress_packets,
        message.connections or model.CONNECTIONS,
    )


def network(message):
    return model.NetworkSpec(
        message.name,
        message.bridge,
        Subnet.parse(message.subnet),
        ip_network(message.ipv6_subnet) if message.ipv6_subnet else None,
        tuple(message.dns),
        tuple(message.search),
        message.mtu,
        policy(message.default_policy),
        limits(message.default_limits),
        tuple(model.HostPort(_PROTOCOLS[one.protocol], one.port) for one in message.host_ports),
    )


def guest(message, network, policy_number):
    """Return the guest behind a port that was told, on the network that was told."""
    return model.Guest(
        message.vm_id,
        message.tap,
        message.bridge,
        message.mac,
        network.mtu,
        IPv4Interface(message.ipv4).ip,
        ip_address(message.gateway),
        IPv6Interface(message.ipv6).ip if message.ipv6 else None,
        ip_address(message.ipv6_gateway) if message.ipv6_gateway else None,
        policy(message.policy),
        policy_number,
        limits(message.limits),
    )


def link(message):
    return model.Link(
        message.from_vm_id, message.to_vm_id, _PROTOCOLS[message.protocol], tuple(message.ports)
    )


def publication(message):
    return model.Publication(
        message.vm_id,
        ip_address(message.host_ip),
        message.host_port,
        message.guest_port,
        _PROTOCOLS[message.protocol],
    )
