"""Whether the host is fit for a network, before anything of it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Collection

    from nexus_netd.kernel import Bridge, Kernel
    from nexus_netd.model import Cidr, NetworkSpec


async def check(
    kernel: Kernel, spec: NetworkSpec, bridges: Collection[str], *, new: bool = False
) -> None:
    """Look at what the network's `bridges` are now, and who else uses its addresses.

    A `new` one takes over no bridge of that name, even if it has no addresses.

    Raises FailedPrecondition (BRIDGE_FOREIGN, SUBNET_IN_USE, IPV6_BY_RA). A network that is there,
    maybe on bridges of other names, is fit: its guests' routes are more exact than any that came
    later.
    """
    found = [one for name in bridges if (one := await kernel.bridge(name)) is not None]
    for link in found:
        _check_ours(link, spec, new=new)
    if any(link.network == spec.name for link in await kernel.bridges()):
        return
    await check_addresses(kernel, spec, bridges)
    if spec.ipv6 and 6 not in await kernel.forwarding():
        await _check_forwarding(kernel)


async def check_addresses(kernel: Kernel, spec: NetworkSpec, bridges: Collection[str]) -> None:
    """Raise FailedPrecondition (SUBNET_IN_USE) if somebody else uses the network's addresses."""
    subnets: list[Cidr] = [spec.subnet.network]
    if spec.ipv6:
        subnets.append(spec.ipv6)
    for overlap in await kernel.overlaps(subnets, bridges):
        raise FailedPrecondition(
            "SUBNET_IN_USE",
            f"subnet {overlap.subnet} overlaps {overlap.network} on {overlap.link}; "
            "set a subnet that the host does not use",
            subnet=str(overlap.subnet),
            overlap=str(overlap.network),
            link=overlap.link,
        )


def _check_ours(link: Bridge, spec: NetworkSpec, *, new: bool) -> None:
    """A bridge without a mark is taken over if nobody has given it another address."""
    own = {spec.gateway, spec.ipv6_gateway}
    if link.kind != "bridge":
        what = f"a link of kind {link.kind or 'unknown'!r}, not a bridge"
    elif link.network is not None and link.network != spec.name:
        what = f"the bridge of network {link.network!r}"
    elif link.network is None and (new or link.addresses - own):
        others = ", ".join(sorted(str(address) for address in link.addresses - own))
        what = f"a bridge of somebody else's (its addresses: {others or 'none'})"
    else:
        return
    raise FailedPrecondition(
        "BRIDGE_FOREIGN",
        f"{link.name} is {what}; rename it, or set another name for the bridge of network "
        f"{spec.name!r}",
        bridge=link.name,
    )


async def _check_forwarding(kernel: Kernel) -> None:
    links = await kernel.has_route_by_ra()
    if links:
        raise FailedPrecondition(
            "IPV6_BY_RA",
            f"forwarding IPv6 would take the host's default route on {', '.join(links)}, which "
            "comes by router advertisements; set net.ipv6.conf."
            f"{links[0]}.accept_ra=2 first, or use no IPv6",
            links=",".join(links),
        )
