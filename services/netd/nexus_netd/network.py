"""The network that ports are on: bridge, gateway address, forwarding and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_netd import firewall
from nexus_netd.kernel import Bridge
from nexus_netd.plan import Step, carry_out
from nexus_netd.subnet import mac
from nexus_rpc.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_netd.kernel import Kernel, Stamp
    from nexus_netd.subnet import Subnet


class Network:
    """One bridge and its subnet. Calls must not overlap: the caller holds a lock."""

    def __init__(self, kernel: Kernel, bridge: str, subnet: Subnet, mtu: int) -> None:
        self._kernel = kernel
        self._subnet = subnet
        self._bridge = Bridge(bridge, mac(subnet.gateway.ip), mtu)
        self._table = firewall.table(bridge, subnet.network)
        self._seen: Stamp | None = None

    async def ensure(self) -> list[str]:
        """Make or repair everything; return what had to be done, for people.

        Raises FailedPrecondition (SUBNET_IN_USE, BRIDGE_FOREIGN) before anything is touched.
        """
        await self._check()
        done = await carry_out(self._plan())
        before, self._seen = self._seen, await self._kernel.stamp(self._bridge.name)
        if not done and before and self._seen and before.bridge != self._seen.bridge:
            done.append(f"bridge {self._bridge.name} found replaced")
        return done

    async def untouched(self) -> bool:
        """Whether nobody has touched bridge or rules since they were last in order. Cheap."""
        return self._seen is not None and self._seen == await self._kernel.stamp(self._bridge.name)

    @property
    def wanted(self) -> bool:
        """Whether it was in order once, and not removed since."""
        return self._seen is not None

    async def remove(self) -> tuple[bool, bool]:
        """Remove bridge and rules; return whether there was a bridge and a table.

        Forwarding stays on: others may have come to rely on it.
        """
        self._seen = None
        link = await self._kernel.bridge(self._bridge.name)
        ours = link is not None and link.kind == "bridge"
        bridge = ours and await self._kernel.remove_bridge(self._bridge.name)
        return bridge, await self._kernel.remove_table()

    async def _check(self) -> None:
        name = self._bridge.name
        link = await self._kernel.bridge(name)
        if link is not None and link.kind != "bridge":
            raise FailedPrecondition(
                "BRIDGE_FOREIGN",
                f"{name} is a link of kind {link.kind or 'unknown'!r}, not a bridge; rename it, "
                "or set another name for the bridge",
                bridge=name,
            )
        network = self._subnet.network
        overlaps = await self._kernel.overlaps(network, name)
        if overlaps:
            first = overlaps[0]
            raise FailedPrecondition(
                "SUBNET_IN_USE",
                f"subnet {network} overlaps {first.network} on {first.link}; "
                "set a subnet that the host does not use",
                subnet=str(network),
                overlap=str(first.network),
                link=first.link,
            )

    def _plan(self) -> Sequence[Step]:
        kernel, want, gateway = self._kernel, self._bridge, self._subnet.gateway

        async def no_bridge() -> bool:
            return await kernel.bridge(want.name) is None

        async def bridge_differs() -> bool:
            return await kernel.bridge(want.name) != want

        async def address_differs() -> bool:
            return list(await kernel.addresses(want.name)) != [gateway]

        async def not_forwarding() -> bool:
            return not await kernel.forwarding()

        async def table_differs() -> bool:
            return await kernel.table() != self._table

        return (
            Step(
                f"bridge {want.name} made",
                no_bridge,
                lambda: kernel.put_bridge(want),
                lambda: kernel.remove_bridge(want.name),
            ),
            Step(f"bridge {want.name} repaired", bridge_differs, lambda: kernel.put_bridge(want)),
            Step(
                f"address {gateway} set",
                address_differs,
                lambda: kernel.put_address(want.name, gateway),
            ),
            Step("IPv4 forwarding turned on", not_forwarding, kernel.put_forwarding),
            Step(
                f"table inet {firewall.NAME} written",
                table_differs,
                lambda: kernel.put_table(self._table),
            ),
        )
