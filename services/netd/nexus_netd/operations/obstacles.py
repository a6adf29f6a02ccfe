"""What of the host's own stands in the way of guests, said for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError

if TYPE_CHECKING:
    from nexus_netd.model import Cidr
    from nexus_netd.operations.state import State

WAY_OUT = "`nexusctl setup-firewall` shows what to add there"


async def of_network(state: State, name: str) -> list[str]:
    """Return what stands in the way of a network's guests."""
    problem = state.problems.get(name)
    if problem is not None:
        return [f"it is not made: {problem}"]
    spec = state.view.networks[name]
    found = []
    try:
        for drop in await state.kernel.foreign_drops():
            what = (
                "what guests send to the outside"
                if drop.hook == "forward"
                else "what guests ask of the host, DNS above all"
            )
            found.append(
                f"chain {drop.chain} of table {drop.table} drops {what}, unless it lets "
                f"{spec.bridge} pass; an accept of ours does not override it; {WAY_OUT}"
            )
        subnets: list[Cidr] = [spec.subnet.network]
        if spec.ipv6:
            subnets.append(spec.ipv6)
        bridges = [bridge for one in state.view.networks for bridge in state.view.bridges_of(one)]
        found += [
            f"{overlap.network} on {overlap.link} overlaps the network's {overlap.subnet}: the "
            "host reaches those addresses there only where no VM has them"
            for overlap in await state.kernel.overlaps(subnets, bridges)
        ]
        wanted = {4, 6} if spec.ipv6 else {4}
        found += [
            f"the host does not forward IPv{version}"
            for version in sorted(wanted - await state.kernel.forwarding())
        ]
    except KernelError as error:
        found.append(f"what stands in the way cannot be told: {error}")
    return found
