"""ExplainFlow: the facts are gathered, explained, and made a message."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd import checks, convert, requested
from nexus_netd.model import Protocol
from nexus_netd.reports.explain import NEXUS, Facts, concerned, explain
from nexus_netd.rules.policy import wire
from nexus_rpc.errors import invalid_field
from nexus_rpc.ids import check_vm_id

if TYPE_CHECKING:
    from nexus_netd.model import Address
    from nexus_netd.operations.state import State
    from nexus_netd.reports.denials import Denials
    from nexus_netd.view import View


async def answer(
    state: State, denials: Denials, request: pb.ExplainFlowRequest
) -> pb.ExplainFlowResponse:
    """Return what would become of the flow. Raises NotFound, InvalidArgument, KernelError."""
    vm_id = check_vm_id("vm_id", request.vm_id)
    protocol = requested.protocol("protocol", request.protocol) or Protocol.TCP
    port = _port(request.port, protocol)
    state.port(vm_id)
    destination = _destination(state.view, vm_id, request.destination)
    guest = state.view.guests[vm_id]
    flows = [flow for flow in await state.kernel.flows(guest.addresses) if not flow.closed]
    pins = tuple(state.pins.of(vm_id))
    meant = concerned(pins, destination)
    facts = Facts(
        state.view,
        guest,
        pins,
        [address for address in meant if await state.kernel.local(address)],
        {mine: sum(flow.source == mine for flow in flows) for mine in guest.addresses},
        lambda address: state.pins.name(vm_id, address),
    )
    found = explain(facts, destination, protocol, port)
    return pb.ExplainFlowResponse(
        allowed=found.allowed,
        rule=found.rule,
        explanation=found.why,
        egress_rule=convert.rule(found.egress_rule) if found.egress_rule else None,
        pins=map(convert.pin, found.pins),
        denied_packets=denials.count(vm_id, found.rule),
        connections=sum(
            flow.source in guest.addresses
            and flow.destination in meant
            and flow.protocol == wire(protocol, flow.destination.version)[0]
            and flow.port == port
            for flow in flows
        ),
    )


def _port(port: int, protocol: Protocol) -> int:
    if protocol is not Protocol.ICMP:
        return checks.port("port", port)
    if port:
        raise invalid_field("port", port, "no port with ICMP")
    return 0


def _destination(view: View, vm_id: str, text: str) -> Address | str:
    """Return an address, or a name as the guest's resolver would complete it."""
    try:
        address = ip_address(text)
    except ValueError:
        pass
    else:
        return checks.address("destination", str(address))
    name = checks.domain("destination", text.removesuffix("."), pattern=False)
    port = view.ports[vm_id]
    search = port.search or view.networks[port.network].search
    return name + NEXUS if "." not in name and NEXUS[1:] in search else name
