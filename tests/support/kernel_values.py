"""Bridges and guests for tests of the kernel port."""

import base64
from ipaddress import IPv4Address, IPv6Address, ip_network

from nexus_netd.kernel import Bridge
from nexus_netd.model import Guest, HostPort, Limits, NetworkSpec, Policy, Protocol
from nexus_netd.rules import elements, policy
from nexus_netd.rules.ruleset import Contents
from nexus_netd.subnet import Subnet, mac

NAME = "nexbr0"
GATEWAY, GATEWAY6 = IPv4Address("10.9.0.1"), IPv6Address("fd6e:6578:7573::1")
SUBNETS = (ip_network("10.9.0.0/16"), ip_network("fd6e:6578:7573::/64"))


def bridge(name=NAME, *, ipv6=True, **changes):
    addresses = {GATEWAY, GATEWAY6} if ipv6 else {GATEWAY}
    fields = {"network": "default", "mac": mac(GATEWAY), "mtu": 1280, "addresses": addresses}
    fields |= changes
    return Bridge(name, **fields | {"addresses": frozenset(fields["addresses"])})


def guest(number=1, tap="", *, on=NAME, ipv6=True, vm_id=None):
    """Return guest number 1 to 65,533, with its own MAC and addresses."""
    ipv4 = GATEWAY + number
    return Guest(
        vm_id or vm(number),
        tap,
        on,
        mac(ipv4),
        1280,
        ipv4,
        GATEWAY,
        GATEWAY6 + number if ipv6 else None,
        GATEWAY6 if ipv6 else None,
        Policy(),
        1,
        Limits(),
    )


def vm(number):
    """Return the id of VM `number`."""
    return base64.b32encode((number << 1).to_bytes(8, "big")).decode().rstrip("=").lower()


async def attach(kernel, wanted, name=None):
    """Make the guest's TAP, keep it, and return its name."""
    async with kernel.new_tap(wanted, name) as tap:
        await tap.keep()
    return tap.name


def contents(*policies):
    """Return what is in the tables for one network, one guest, and these policies."""
    spec = NetworkSpec(
        "default",
        NAME,
        Subnet.parse("10.9.0.0/16"),
        SUBNETS[1],
        host_ports=(HostPort(Protocol.TCP, 8080),),
    )
    chains = frozenset(policy.chain(3 + number, one) for number, one in enumerate(policies))
    found = {*elements.of_network(spec, [NAME]), *elements.of_guest(guest(1, "nexus0"))}
    return Contents(frozenset(found | {chain.element for chain in chains}), chains)
