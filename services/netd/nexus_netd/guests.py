"""A port with everything resolved: its settings over its network's, its addresses and bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_netd.model import CONNECTIONS, Guest, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from nexus_netd.model import NetworkSpec, Policy, Port


def resolve(port: Port, network: NetworkSpec, number: Callable[[Policy], int]) -> Guest:
    """Return the guest behind the port; `number` tells a policy's number."""
    policy = network.default_policy if port.policy is None else port.policy
    return Guest(
        vm_id=port.vm_id,
        tap=port.tap,
        bridge=port.bridge,
        mac=port.mac,
        mtu=network.mtu,
        ipv4=network.subnet.interface(port.host).ip,
        gateway=network.gateway,
        ipv6=network.ipv6[port.host] if network.ipv6 else None,
        ipv6_gateway=network.ipv6_gateway,
        policy=policy,
        policy_number=number(policy),
        limits=port.limits.over(network.default_limits).over(Limits(connections=CONNECTIONS)),
    )


def bridge_name(first: str, number: int) -> str:
    """Return the name of a network's bridge; number 0 is the first."""
    return f"{first}-{number}" if number else first


def bridge_number(first: str, name: str) -> int:
    """Return which of the network's bridges it is: what `bridge_name` was given."""
    return 0 if name == first else int(name.removeprefix(f"{first}-"))
