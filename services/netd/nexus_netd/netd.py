"""The operations of netd: one change at a time, in its turn; reads do not wait."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nexus_netd.operations.egress import Egress
from nexus_netd.operations.network import Network
from nexus_netd.operations.ports import Ports
from nexus_netd.operations.repair import Repair
from nexus_netd.operations.settle import cut_all
from nexus_netd.operations.turn import Turn
from nexus_netd.operations.ways import Ways
from nexus_rpc.errors import FailedPrecondition, NexusError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nexus_netd.model import Address, Guest, Limits, Link, NetworkSpec, Policy, Publication
    from nexus_netd.operations.ports import Asked
    from nexus_netd.operations.state import State
    from nexus_netd.subnet import Subnet
    from nexus_netd.view import View

_AT_ONCE = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removed:
    """What a cleanup removed: by name, and leases, links and publications in number."""

    taps: Sequence[str]
    bridges: Sequence[str]
    tables: Sequence[str]
    leases: int
    ways: int


class Netd:
    """Everything that netd does, over what it has (`state`)."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.turn = Turn()
        self.repair = Repair(state)
        self._ports = Ports(state, self.repair)
        self._networks = Network(state, self.repair)
        self._ways = Ways(state, self.repair)
        self._egress = Egress(state, self.repair)

    def view(self) -> View:
        """Return what netd has now; it is kept up to date."""
        return self.state.view

    def name_given(self, vm_id: str, address: Address) -> str:
        """Return the name that a VM was given the address for last, "" without one."""
        return self.state.pins.name(vm_id, address)

    async def start(self) -> None:
        """Bring the kernel to what the store says; report what was done.

        A host that is not fit for it now (a subnet in use) does not stop the service: calls say
        what is wrong, and succeed once it is put right.
        """

        async def work() -> None:
            await self._egress.take_up_pins()
            await self.repair.everything()
            await self._egress.settle_all()
            await self.state.stale.find()

        try:
            await self.turn.take(work)
        except NexusError as error:
            _log.error("no network: %s", error)  # the message is the whole story

    async def ensure(self) -> list[str]:
        """Make or repair everything; return what had to be done, for people.

        Raises the problem of the first network that the host is not fit for, and KernelError.
        """

        async def work() -> list[str]:
            done = await self.repair.everything()
            for problem in self.state.problems.values():
                raise problem
            return [one.what for one in done]

        return await self.turn.take(work)

    async def create_network(self, spec: NetworkSpec) -> NetworkSpec:
        """See `network.Network.create`."""
        return await self.turn.take(lambda: self._networks.create(spec))

    async def update_network(self, spec: NetworkSpec) -> int:
        """See `network.Network.update`."""
        return await self.turn.take(lambda: self._networks.update(spec))

    async def delete_network(self, name: str) -> bool:
        """See `network.Network.delete`."""
        return await self.turn.take(lambda: self._networks.delete(name))

    async def migrate_network(self, name: str, subnet: Subnet) -> Sequence[Guest]:
        """See `network.Network.migrate`."""
        return await self.turn.take(lambda: self._networks.migrate(name, subnet))

    async def attach(self, asked: Asked) -> Guest:
        """See `ports.Ports.attach`."""
        return await self.turn.take(lambda: self._ports.attach(asked))

    async def detach(self, vm_id: str) -> bool:
        """See `ports.Ports.detach`."""
        return await self.turn.take(lambda: self._ports.detach(vm_id))

    async def set_policy(self, vm_id: str, policy: Policy | None) -> int:
        """See `egress.Egress.set_policy`."""
        return await self.turn.take(lambda: self._egress.set_policy(vm_id, policy))

    async def set_limits(self, vm_id: str, limits: Limits) -> None:
        """See `egress.Egress.set_limits`."""
        await self.turn.take(lambda: self._egress.set_limits(vm_id, limits))

    async def pin(
        self,
        vm_id: str,
        domain: str,
        addresses: Sequence[Address],
        ttl: float,
        slots: Sequence[int],
    ) -> None:
        """See `egress.Egress.pin`. Waits for no turn: a guest waits for its answer."""
        await self._egress.pin(vm_id, domain, addresses, ttl, slots)

    async def link(self, link: Link) -> None:
        """See `ways.Ways.link`."""
        await self.turn.take(lambda: self._ways.link(link))

    async def unlink(self, link: Link) -> bool:
        """See `ways.Ways.unlink`."""
        return await self.turn.take(lambda: self._ways.unlink(link))

    async def publish(self, publication: Publication) -> None:
        """See `ways.Ways.publish`."""
        await self.turn.take(lambda: self._ways.publish(publication))

    async def unpublish(self, protocol: int, host_ip: Address, host_port: int) -> bool:
        """See `ways.Ways.unpublish`."""
        return await self.turn.take(lambda: self._ways.unpublish(protocol, host_ip, host_port))

    async def heard(self, vm_id: str, name: str, *, live: bool) -> None:
        """Take in what vmm tells of a VM: its name, and whether it has a process."""
        state = self.state
        state.names[vm_id] = name
        (state.live.add if live else state.live.discard)(vm_id)
        port = state.view.ports.get(vm_id)
        if port is None or port.vm_name == name:
            return

        async def work() -> None:
            port = state.view.ports.get(vm_id)
            if port is not None and port.vm_name != name:
                await state.store.commit(state.store.leases.put(replace(port, vm_name=name)))
                state.feed.tell("changed", vm_id, port.network, f"its VM is called {name}")

        await self.turn.take(work)

    def unheard(self, vm_ids: Collection[str]) -> None:
        """Forget what vmm told of these VMs: they are no more."""
        for vm_id in vm_ids:
            self.state.names.pop(vm_id, None)
            self.state.live.discard(vm_id)

    async def cleanup(self, *, force: bool) -> Removed:
        """Remove everything of ours from kernel and store; networks stay in the store.

        Raises FailedPrecondition (VMS_RUNNING), KernelError; a cleanup that failed half-way is
        taken back by a repair.
        """
        return await self.turn.take(lambda: self._cleanup(force=force))

    async def _cleanup(self, *, force: bool) -> Removed:
        state, kernel = self.state, self.state.kernel
        running = sorted(state.live & state.view.ports.keys())
        if running and not force:
            raise FailedPrecondition(
                "VMS_RUNNING",
                f"{len(running)} VMs are running and would lose their network, {running[0]} for "
                "one; stop them, or force it",
                vm_ids=",".join(running[:20]),
            )
        leases = len(state.view.ports)
        ways = sum(
            len(state.view.links_from(vm_id)) + len(state.view.publications_of(vm_id))
            for vm_id in state.view.ports
        )
        ports, guests = list(state.view.ports.values()), list(state.view.guests.values())
        async with state.undo() as undo:
            undo.push("the network", self.repair.everything)
            taps = await self._remove_taps()
            bridges = [
                one.name for one in await kernel.bridges() if await kernel.remove_bridge(one.name)
            ]
            await kernel.put_subnets(())
            tables = await kernel.remove_tables()
            await cut_all(kernel, [one for guest in guests for one in guest.addresses])
            await state.store.commit(
                state.store.leases.clear(),
                *(state.store.policies.sweep(port.policy) for port in ports),
            )
        state.wanted = state.standing = False
        for port in ports:
            state.pins.forget(port.vm_id)
            state.feed.tell("detached", port.vm_id, port.network, "cleaned up")
        return Removed(taps, bridges, tables, leases, ways)

    async def _remove_taps(self) -> list[str]:
        """Remove all TAPs of ours, several at a time: the kernel takes its time for each."""
        kernel = self.state.kernel
        found = list(await kernel.taps())
        removed: list[str] = []
        for first in range(0, len(found), _AT_ONCE):
            some = found[first : first + _AT_ONCE]
            gone = await asyncio.gather(*map(kernel.remove_tap, some), return_exceptions=True)
            for tap, outcome in zip(some, gone, strict=True):
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome:
                    removed.append(tap.name)
        return removed
