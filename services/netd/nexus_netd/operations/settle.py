"""Connections that were opened when more was allowed: those that no longer are get cut.

The kernel lets packets of known connections pass without asking a policy again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nexus_netd.kernel import MOST_FLOWS
from nexus_netd.model import Protocol
from nexus_netd.rules import policy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from nexus_netd.kernel import Flow, Kernel
    from nexus_netd.model import Address, Link, NetworkSpec
    from nexus_netd.operations.pins import Pins
    from nexus_netd.view import View

_ICMP = {1, 58}
_DNS_PORT = 53
_AT_A_TIME = 64
"""Connections that are looked at before others have their turn on the loop."""


async def settle(kernel: Kernel, view: View, pins: Pins, vm_ids: Collection[str]) -> int:
    """Cut what the VMs' guests have open and may not open any more; return how many there were."""
    guests = [view.guests[vm_id] for vm_id in vm_ids if vm_id in view.guests]
    addresses = [address for one in guests for address in one.addresses]
    return await _settle(kernel, view, pins, addresses) if addresses else 0


async def cut_all(kernel: Kernel, addresses: Sequence[Address]) -> int:
    """Cut all that these addresses have open; return how many there were."""
    cut = 0
    while flows := await kernel.flows(addresses):
        cut += await kernel.cut(flows)
        if len(flows) < MOST_FLOWS:
            break
    return cut


async def _settle(kernel: Kernel, view: View, pins: Pins, addresses: Sequence[Address]) -> int:
    flows = await kernel.flows(addresses)
    if len(flows) < MOST_FLOWS:
        forbidden = []
        for number, flow in enumerate(flows):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # a policy may have 256 rules
            if not allowed(view, flow, pins.given):
                forbidden.append(flow)
        return await kernel.cut(forbidden) if forbidden else 0
    if len(addresses) == 1:
        return await cut_all(kernel, addresses)  # what cannot be looked at is not let through
    middle = len(addresses) // 2
    halves = (addresses[:middle], addresses[middle:])
    return sum([await _settle(kernel, view, pins, half) for half in halves])


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
