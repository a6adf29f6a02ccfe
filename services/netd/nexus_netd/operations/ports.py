"""Ports: a lease, a TAP and its rules for each VM, made and taken away as one.

A new TAP lives on a descriptor of this process until its lease is stored and its rules are in
place; then it is made persistent. Killed before, the TAP goes with the process; killed after, the
lease says what is missing, and a repair brings it back under the same name.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError, Tap
from nexus_netd.model import Limits, Policy, Port
from nexus_netd.operations.network_repair import bridge_of
from nexus_netd.operations.state import of_pins
from nexus_netd.operations.wanted import NOTHING
from nexus_netd.rules.ruleset import Change
from nexus_netd.subnet import FIRST_GUEST
from nexus_rpc.errors import AlreadyExists, invalid_field

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from nexus_netd.model import Guest, NetworkSpec
    from nexus_netd.operations.pins import Key
    from nexus_netd.operations.repair import Repair
    from nexus_netd.operations.state import State
    from nexus_netd.records.leases import Place

_GONE = {errno.ENODEV, errno.ENOENT, errno.ENETDOWN, errno.ENETUNREACH}
"""What a new port meets when a bridge or a table has been removed, and is not back yet."""


@dataclass(frozen=True)
class Asked:
    """What a port is asked for with; what is left out is the network's."""

    vm_id: str
    network: str = "default"
    address: IPv4Address | None = None
    policy: Policy | None = None
    limits: Limits = field(default_factory=Limits)
    upstream_dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


class Ports:
    """The ports of all networks. Changes must not overlap: the caller holds the turn."""

    def __init__(self, state: State, repair: Repair) -> None:
        self._state = state
        self._repair = repair
        self._kernel = state.kernel
        self._view = state.view

    async def attach(self, asked: Asked) -> Guest:
        """Return the VM's port, made or repaired.

        Raises NotFound, AlreadyExists (PORT_DIFFERS, ADDRESS_TAKEN), InvalidArgument,
        ResourceExhausted, KernelError.
        """
        try:
            return await self._attach(asked)
        except KernelError as error:
            if error.errno not in _GONE:
                raise
        # Somebody has just taken away what the port is put on.
        await self._repair.everything()
        return await self._attach(asked)

    async def detach(self, vm_id: str) -> bool:
        """Take the VM's port away. Returns whether there was one."""
        port = self._view.ports.get(vm_id)
        if port is None:
            return False
        state, guest = self._state, self._view.guests[vm_id]
        numbers = (guest.policy_number,) if self._view.users(guest.policy_number) == 1 else ()
        linked = {link.from_vm_id for link in self._view.links_to(vm_id)}
        own = state.wants.of_vms([vm_id], numbers)
        given = state.pins.everything(vm_id)
        pins = of_pins(guest, dict.fromkeys(state.pins.leave(vm_id), 0.0))
        async with state.undo() as undo:
            undo.push("pins", lambda: self._bring_back(guest, given))
            change = own.until(NOTHING)
            await state.tell(replace(change, remove=change.remove + pins))
            undo.push("rules", lambda: state.tell(NOTHING.until(own)))
            undo.push("TAP", lambda: self._repair.taps.tap(guest))
            await self._remove_tap(guest)
            # Last, so that the address is nobody else's while anything of it exists.
            await state.store.commit(
                state.store.leases.remove(port), state.store.policies.sweep(port.policy)
            )
        state.pins.forget(vm_id)
        state.stale.add(guest.addresses)
        state.feed.tell("detached", vm_id, port.network, f"{guest.ipv4} is free")
        for other in linked:
            network = self._view.ports[other].network
            state.feed.tell("changed", other, network, f"its links to {vm_id} are gone")
        return True

    async def _attach(self, asked: Asked) -> Guest:
        port = self._view.ports.get(asked.vm_id)
        if port is not None:
            self._check_same(port, asked)
            await self._repair.stand(port.network)
            await self._have_tap(self._view.guests[port.vm_id])
            return self._view.guests[port.vm_id]
        spec = self._state.network(asked.network)
        host = None if asked.address is None else self._host(spec, asked.address)
        await self._repair.stand(spec.name)
        return await self._make(asked, spec, host)

    async def _make(self, asked: Asked, spec: NetworkSpec, host: int | None) -> Guest:
        while True:
            place = await self._state.store.leases.place(spec, host)
            port = _port(asked, place, self._state.names.get(asked.vm_id, ""))
            if place.bridge not in self._view.bridges_of(spec.name):
                await self._add_bridge(spec, place.bridge)
            guest = self._state.store.leases.resolve(port)
            await self._state.stale.forget(guest.addresses)
            async with self._kernel.new_tap(guest) as tap:
                holder = self._view.at_tap(tap.name)
                if holder is None:
                    port = replace(port, tap=tap.name)
                    await self._take(port, place)
                    async with self._state.undo() as undo:
                        undo.push("lease and rules", lambda: self._give_up(port))  # noqa: B023
                        await tap.keep()
            if holder is None:
                break
            # Somebody removed that port's TAP, and the kernel gave its name out again.
            await self._have_tap(self._view.guests[holder])
        guest = self._view.guests[asked.vm_id]
        details = f"{guest.ipv4} at {guest.tap} on {guest.bridge}"
        self._state.feed.tell("attached", port.vm_id, port.network, details)
        return guest

    async def _take(self, port: Port, place: Place) -> None:
        """Store the lease, then put its rules in place."""
        store = self._state.store
        await self._state.change(
            lambda: self._state.wants.of_vms([port.vm_id], self._numbers(port)),
            [store.policies.keep(port.policy), store.leases.add(port, place.after)],
            [store.leases.remove(port), store.policies.sweep(port.policy)],
        )

    async def _give_up(self, port: Port) -> None:
        store = self._state.store
        await self._state.change(
            lambda: self._state.wants.of_vms([port.vm_id], self._numbers(port)),
            [store.leases.remove(port), store.policies.sweep(port.policy)],
            [],
        )

    def _numbers(self, port: Port) -> tuple[int, ...]:
        spec = self._view.networks[port.network]
        return self._state.policies(port.policy or spec.default_policy)

    async def _add_bridge(self, spec: NetworkSpec, name: str) -> None:
        """Make a network's next bridge, and let the rules know it."""
        state, wants = self._state, self._state.wants
        async with state.undo() as undo:
            undo.push("bridge", lambda: self._kernel.remove_bridge(name))
            await self._kernel.put_bridge(bridge_of(spec, name))
            before = wants.of_network(spec.name)
            self._view.add_bridge(spec.name, name)
            undo.push("bridge's name", lambda: self._forget_bridge(spec.name, name))
            await state.tell(before.until(wants.of_network(spec.name)))

    async def _forget_bridge(self, network: str, name: str) -> None:
        self._view.drop_bridge(network, name)

    async def _have_tap(self, guest: Guest) -> None:
        try:
            await self._repair.taps.tap(guest)
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            await self._repair.taps.rename(guest)

    async def _remove_tap(self, guest: Guest) -> None:
        if await self._kernel.remove_tap(Tap.of(guest)):
            return
        found = await self._kernel.tap(guest.tap)
        if found is not None and self._repair.taps.is_of(found, guest):
            await self._kernel.remove_tap(found)
        await self._kernel.unroute(guest.bridge, guest.addresses)

    async def _bring_back(self, guest: Guest, given: dict[Key, tuple[str, float]]) -> None:
        self._state.pins.restore(guest.vm_id, given)
        live = of_pins(guest, self._state.pins.live(guest.vm_id))
        await self._state.tell(Change(add=live))

    def _host(self, spec: NetworkSpec, address: IPv4Address) -> int:
        """Return the address's place in the subnet, if a port can have it."""
        network = spec.subnet.network
        if address not in network:
            raise invalid_field("ipv4", str(address), f"an address of {network}")
        host = int(address) - int(network.network_address)
        if not FIRST_GUEST <= host <= spec.subnet.last_guest:
            raise invalid_field(
                "ipv4",
                str(address),
                f"{network} keeps it: its first address, its last, or the gateway {spec.gateway}",
            )
        holder = self._view.at_address(address)
        if holder is not None:
            raise AlreadyExists(
                "ADDRESS_TAKEN",
                f"{address} is VM {holder}'s; ask for another, or for none in particular",
                address=str(address),
                vm_id=holder,
            )
        return host

    def _check_same(self, port: Port, asked: Asked) -> None:
        """A repeat must ask for what there is. Raises AlreadyExists (PORT_DIFFERS)."""
        guest = self._view.guests[port.vm_id]
        asks_address = asked.address is not None and asked.address != guest.ipv4
        if port.network != asked.network or asks_address:
            raise AlreadyExists(
                "PORT_DIFFERS",
                f"VM {port.vm_id} has a port on network {port.network!r} with {guest.ipv4}; "
                "detach it first, or ask for the same",
                vm_id=port.vm_id,
                network=port.network,
                ipv4=str(guest.ipv4),
            )


def _port(asked: Asked, place: Place, name: str) -> Port:
    return Port(
        number=place.number,
        vm_id=asked.vm_id,
        network=asked.network,
        host=place.host,
        bridge=place.bridge,
        tap="",
        mac=place.mac,
        created=time.time(),
        policy=asked.policy,
        limits=asked.limits,
        upstream_dns=asked.upstream_dns,
        search=asked.search,
        vm_name=name,
    )
