"""Connections that were opened when more was allowed: those that no longer are get cut.

The kernel lets packets of known connections pass without asking a policy again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_netd.model import Protocol
from nexus_netd.rules import policy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nexus_netd.kernel import Flow, Kernel
    from nexus_netd.model import Address, Link, NetworkSpec
    from nexus_netd.operations.pins import Pins
    from nexus_netd.view import View

_ICMP = {1, 58}
_DNS_PORT = 53


async def settle(kernel: Kernel, view: View, pins: Pins, vm_ids: Collection[str]) -> int:
    """Cut what the VMs' guests have open and may not open any more; return how many there were."""
    guests = [view.guests[vm_id] for vm_id in vm_ids if vm_id in view.guests]
    if not guests:
        return 0
    flows = await kernel.flows([address for one in guests for address in one.addresses])
    forbidden = [flow for flow in flows if not allowed(view, flow, pins.given)]
    return await kernel.cut(forbidden) if forbidden else 0


def allowed(view: View, flow: Flow, given: Callable[[str, Address, int], bool]) -> bool:
    """Whether the flow could be opened now, or with a pin that is over.

    `given` tells whether a VM was given an address for a rule in a slot, now or before.
    """
    source = view.at_address(flow.source)
    target = view.at_address(flow.destination)
    if source is None:
        # To a guest itself: the host has opened it. Else it came by a publication.
        return target is not None or _is_published(view, flow)
    guest = view.guests[source]
    if target is not None:
        return any(
            _is_linked(link, flow) for link in view.links_from(source) if link.to_vm_id == target
        )
    for spec in view.networks.values():
        if flow.destination in (spec.gateway, spec.ipv6_gateway):
            return spec.name == view.ports[source].network and _is_served(spec, flow)

    if not flow.masked:
        # It leads to the host, or went out by itself: opened while our rules were not there.
        return False

    def pinned(slot: int) -> bool:
        return given(source, flow.destination, slot)

    return policy.decide(guest.policy, flow.destination, flow.protocol, flow.port, pinned).allowed


def _is_published(view: View, flow: Flow) -> bool:
    found = view.published(flow.protocol, flow.port).values()
    return any(
        one.host_ip == flow.destination
        or (one.host_ip.is_unspecified and one.host_ip.version == flow.destination.version)
        for one in found
    )


def _is_linked(link: Link, flow: Flow) -> bool:
    if link.protocol is Protocol.ICMP:
        return flow.protocol in _ICMP
    if link.protocol is not Protocol.ANY and link.protocol != flow.protocol:
        return False
    return not link.ports or flow.port in link.ports


def _is_served(spec: NetworkSpec, flow: Flow) -> bool:
    if flow.protocol in _ICMP or flow.port == _DNS_PORT:
        return True
    return any((one.protocol, one.port) == (flow.protocol, flow.port) for one in spec.host_ports)
