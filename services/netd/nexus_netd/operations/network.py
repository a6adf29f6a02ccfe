"""Networks: made, changed, moved to another subnet, and removed. Calls hold the turn."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_netd.operations import fitness
from nexus_netd.operations.settle import cut_all
from nexus_netd.operations.state import of_pins
from nexus_netd.records.networks import DEFAULT, overlapping
from nexus_netd.rules.ruleset import Change
from nexus_netd.subnet import FIRST_GUEST
from nexus_rpc.errors import (
    AlreadyExists,
    FailedPrecondition,
    ResourceExhausted,
    invalid_field,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_netd.model import Guest, NetworkSpec, Port
    from nexus_netd.operations.repair import Repair
    from nexus_netd.operations.state import State
    from nexus_netd.operations.wanted import Wanted
    from nexus_netd.records.policies import Write
    from nexus_netd.subnet import Subnet

MOST = 64
"""Networks that a host has at most."""


class Network:
    """What becomes of networks."""

    def __init__(self, state: State, repair: Repair) -> None:
        self._state = state
        self._repair = repair
        self._kernel = state.kernel
        self._view = state.view

    async def create(self, spec: NetworkSpec) -> NetworkSpec:
        """Make a network. Without a bridge's name one is chosen. A repeat changes nothing.

        Raises AlreadyExists (NETWORK_EXISTS), FailedPrecondition (SUBNET_OVERLAPS, SUBNET_IN_USE,
        BRIDGE_FOREIGN, IPV6_BY_RA), InvalidArgument, KernelError.
        """
        known = self._view.networks.get(spec.name)
        if known is not None and known == replace(spec, bridge=spec.bridge or known.bridge):
            return known
        self._check_new(spec)
        spec = replace(spec, bridge=spec.bridge or await self._free_bridge())
        await fitness.check(self._kernel, spec, [spec.bridge], new=True)
        await self._repair.stand()
        store = self._state.store
        async with self._state.undo() as undo:
            undo.push("network", lambda: self._remove(spec))
            await self._state.change(
                lambda: self._state.wants.of_network(spec.name),
                [store.policies.keep(spec.default_policy), store.networks.put(spec)],
                [store.networks.remove(spec.name), store.policies.sweep(spec.default_policy)],
            )
            await self._repair.networks.network(spec)
        self._state.feed.tell("changed", "", spec.name, f"made with {spec.subnet.network}")
        return spec

    async def update(self, spec: NetworkSpec) -> int:
        """Change what a network has beside its addresses; return how many connections were cut."""
        before = self._state.network(spec.name)
        if before == spec:
            return 0
        state, store = self._state, self._state.store
        vm_ids = [
            vm_id
            for vm_id in self._vm_ids(spec.name)
            if before.default_limits != spec.default_limits
            or self._view.ports[vm_id].policy is None
        ]
        held = (before.default_policy, spec.default_policy)

        def scope() -> Wanted:
            network = state.wants.of_network(spec.name)
            return network.with_all(state.wants.of_guests(vm_ids, state.policies(*held)))

        def writes(to: NetworkSpec, since: NetworkSpec) -> list[Write]:
            return [
                store.policies.keep(to.default_policy),
                store.networks.put(to),
                store.leases.refresh(vm_ids),
                store.policies.sweep(since.default_policy),
            ]

        cut = await state.change_settled(
            scope,
            writes(spec, before),
            writes(before, spec),
            vm_ids,
            repin=vm_ids if before.default_policy != spec.default_policy else (),
        )
        state.feed.tell("changed", "", spec.name, f"{cut} connections cut")
        return cut

    async def delete(self, name: str) -> bool:
        """Remove a network that has no ports. Returns whether there was one."""
        if name == DEFAULT:
            raise FailedPrecondition(
                "NETWORK_PERMANENT",
                f"network {DEFAULT!r} stays; CleanupNetwork takes it from the kernel",
                network=name,
            )
        spec = self._view.networks.get(name)
        if spec is None:
            return False
        count = self._view.port_count(name)
        if count:
            raise FailedPrecondition(
                "NETWORK_IN_USE",
                f"network {name!r} has {count} ports; detach them first",
                network=name,
                ports=str(count),
            )
        async with self._state.undo() as undo:
            undo.push("network", lambda: self._bring_back(spec))
            await self._remove(spec)
        self._state.feed.tell("changed", "", name, "removed")
        return True

    async def migrate(self, name: str, subnet: Subnet) -> Sequence[Guest]:
        """Move a network to another subnet; return its ports with their new addresses.

        Raises NotFound, FailedPrecondition (SUBNET_OVERLAPS, SUBNET_IN_USE), ResourceExhausted
        (SUBNET_FULL), KernelError.
        """
        before = self._state.network(name)
        vm_ids = self._vm_ids(name)
        if before.subnet == subnet:
            return [self._view.guests[vm_id] for vm_id in vm_ids]
        spec = replace(before, subnet=subnet)
        self._check_overlap(spec)
        if len(vm_ids) > subnet.capacity:
            raise ResourceExhausted(
                "SUBNET_FULL",
                f"network {name!r} has {len(vm_ids)} ports, and {subnet.network} has room for "
                f"{subnet.capacity}; use a larger subnet",
                network=name,
                subnet=str(subnet.network),
            )
        await fitness.check_addresses(self._kernel, spec, self._view.bridges_of(name))
        old = [self._view.guests[vm_id] for vm_id in vm_ids]
        do, undo = await self._move(before, spec, [self._view.ports[vm_id] for vm_id in vm_ids])
        settled, unsettled = (
            self._state.store.leases.settle(vm_ids, unsettled=flag) for flag in (False, True)
        )
        async with self._state.undo() as back:
            await self._state.store.commit(*do, unsettled)
            back.push("kernel", self._follow)
            new = [self._view.guests[vm_id] for vm_id in vm_ids]
            back.push("pins", lambda: self._move_pins(new))
            back.push("addresses", lambda: self._state.store.commit(*undo, settled))
            await self._move_pins(old)
            await self._follow()
            # After that nobody opens another under an address that may be somebody else's now.
            await cut_all(self._kernel, [address for one in old for address in one.addresses])
            await self._state.store.commit(settled)
        self._state.feed.tell("changed", "", name, f"moved to {subnet.network}")
        return [self._view.guests[vm_id] for vm_id in vm_ids]

    async def _move(
        self, before: NetworkSpec, spec: NetworkSpec, ports: Sequence[Port]
    ) -> tuple[list[Write], list[Write]]:
        """Return what to write for the move, and for the way back."""
        store = self._state.store
        after, released = await store.leases.released(spec.name)
        if after - 1 <= spec.subnet.last_guest and all(
            port.host <= spec.subnet.last_guest for port in ports
        ):
            moved, counts = list(ports), (after, released)
        else:
            moved = [replace(port, host=FIRST_GUEST + n) for n, port in enumerate(ports)]
            counts = (FIRST_GUEST + len(ports), ())
        do = [store.networks.put(spec), store.leases.rehost(moved)]
        undo = [store.networks.put(before), store.leases.rehost(ports)]
        return (
            [*do, store.networks.recount(spec.name, *counts)],
            [*undo, store.networks.recount(spec.name, after, released)],
        )

    async def _follow(self) -> None:
        """Have the kernel follow the store, if networks are to be there at all."""
        if self._state.wanted:
            await self._repair.everything()

    async def _move_pins(self, old: Sequence[Guest]) -> None:
        """Let guests reach from their new addresses what they were given at the old ones."""
        live = {guest.vm_id: self._state.pins.live(guest.vm_id) for guest in old}
        guests = self._view.guests
        await self._state.tell(
            Change(
                remove=tuple(pin for one in old for pin in of_pins(one, live[one.vm_id])),
                add=tuple(
                    pin for one in old for pin in of_pins(guests[one.vm_id], live[one.vm_id])
                ),
            )
        )

    async def _remove(self, spec: NetworkSpec) -> None:
        store = self._state.store
        bridges = list(self._view.bridges_of(spec.name)) or [spec.bridge]
        if spec.name in self._view.networks:
            await self._state.change(
                lambda: self._state.wants.of_network(spec.name),
                [store.networks.remove(spec.name), store.policies.sweep(spec.default_policy)],
                [store.policies.keep(spec.default_policy), store.networks.put(spec)],
            )
        if spec.name in self._state.problems or not self._state.wanted:
            self._state.problems.pop(spec.name, None)
            self._state.wants.absent.discard(spec.name)
            return  # nothing of it is in the kernel
        for name in bridges:
            await self._kernel.remove_bridge(name)
        await self._repair.networks.subnets()

    async def _bring_back(self, spec: NetworkSpec) -> None:
        store = self._state.store
        await self._state.change(
            lambda: self._state.wants.of_network(spec.name),
            [store.policies.keep(spec.default_policy), store.networks.put(spec)],
            [],
        )
        if self._state.wanted:
            await self._repair.networks.network(spec)

    def _vm_ids(self, network: str) -> list[str]:
        return [port.vm_id for port in self._view.ports.values() if port.network == network]

    def _check_new(self, spec: NetworkSpec) -> None:
        if len(self._view.networks) >= MOST and spec.name not in self._view.networks:
            raise ResourceExhausted(
                "TOO_MANY_NETWORKS", f"there are {MOST} networks, the most; delete one first"
            )
        for other in self._view.networks.values():
            if other.name == spec.name or _clash(other.bridge, spec.bridge):
                what = "name" if other.name == spec.name else f"bridge {spec.bridge!r}"
                raise AlreadyExists(
                    "NETWORK_EXISTS",
                    f"network {other.name!r} ({other.subnet.network} on {other.bridge}) has the "
                    f"{what}; choose another",
                    network=other.name,
                )
        self._check_overlap(spec)

    def _check_overlap(self, spec: NetworkSpec) -> None:
        other = overlapping(spec, list(self._view.networks.values()))
        if other is not None:
            raise FailedPrecondition(
                "SUBNET_OVERLAPS",
                f"subnet {spec.subnet.network} overlaps network {other.name!r} "
                f"({', '.join(map(str, filter(None, (other.subnet.network, other.ipv6))))}); "
                "choose another",
                subnet=str(spec.subnet.network),
                network=other.name,
            )

    async def _free_bridge(self) -> str:
        for number in range(1, 10_000):
            name = f"nexbr{number}"
            taken = any(_clash(one.bridge, name) for one in self._view.networks.values())
            if not taken and await self._kernel.bridge(name) is None:
                return name
        raise invalid_field("network.bridge", "", "name one: all of nexbr1 to nexbr9999 are taken")


def _clash(one: str, other: str) -> bool:
    """Whether two networks' bridges would get one name: the next of NAME are NAME-1, NAME-2..."""
    return bool(other) and (
        one == other
        or re.fullmatch(re.escape(one) + r"-\d+", other) is not None
        or re.fullmatch(re.escape(other) + r"-\d+", one) is not None
    )
