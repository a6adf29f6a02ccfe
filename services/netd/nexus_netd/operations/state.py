"""What must be (the store) and what is (the kernel), and how both are changed as one."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_netd.kernel import Changed, KernelError, Matter
from nexus_netd.operations.pins import Pins
from nexus_netd.operations.plan import Undo
from nexus_netd.operations.settle import settle
from nexus_netd.operations.stale import Stale
from nexus_netd.operations.wanted import Wants
from nexus_netd.rules import elements
from nexus_netd.rules.ruleset import Change
from nexus_rpc.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from nexus_netd.feed import Feed
    from nexus_netd.kernel import Kernel
    from nexus_netd.model import Guest, NetworkSpec, Policy, Port
    from nexus_netd.operations.pins import Key
    from nexus_netd.operations.wanted import Wanted
    from nexus_netd.records.policies import Write
    from nexus_netd.records.store import Store
    from nexus_netd.rules.ruleset import Contents, Element
    from nexus_rpc.errors import NexusError


class State:
    """Store and kernel of one host, shared by all operations."""

    def __init__(self, kernel: Kernel, store: Store, feed: Feed) -> None:
        self.kernel = kernel
        self.store = store
        self.feed = feed
        self.view = store.view
        self.wants = Wants(store.view)
        self.pins = Pins()
        self.stale = Stale(kernel, store.view)
        self.names: dict[str, str] = {}
        """Names of VMs, as far as vmm has told them."""
        self.live: set[str] = set()
        """VMs that have a process, as far as vmm has told."""
        self.wanted = False
        """Whether networks are to be in the kernel: not before they are made, nor cleaned up."""
        self.standing = False
        """Whether they are there, but for single ports."""
        self._gap = False
        self.problems: dict[str, NexusError] = {}
        """Networks that the host is not fit for, and why; they are not in the kernel."""
        self._suspect: Callable[[Changed], None] = lambda _: None

    def on_suspicion(self, call: Callable[[Changed], None]) -> None:
        """Let `call` be told what may not be as it must."""
        self._suspect = call

    def suspect(self, matter: Matter = Matter.EVERYTHING) -> None:
        """Have everything looked at: an operation could not be taken back."""
        self._suspect(Changed(matter))

    def undo(self) -> Undo:
        """Return a block whose steps are taken back when it fails."""
        return Undo(self.suspect)

    def network(self, name: str) -> NetworkSpec:
        """Return a network. Raises NotFound."""
        spec = self.view.networks.get(name)
        if spec is None:
            raise NotFound(
                "NETWORK_NOT_FOUND",
                f"there is no network {name!r}; create it, or use one of "
                f"{', '.join(sorted(self.view.networks))}",
                network=name,
            )
        return spec

    def port(self, vm_id: str) -> Port:
        """Return a VM's port. Raises NotFound."""
        port = self.view.ports.get(vm_id)
        if port is None:
            raise NotFound("PORT_NOT_FOUND", f"VM {vm_id} has no port; attach one", vm_id=vm_id)
        return port

    async def change(
        self,
        scope: Callable[[], Wanted],
        do: Sequence[Write],
        undo: Sequence[Write],
        repin: Collection[str] = (),
    ) -> None:
        """Change the store, and the rules as `scope` then says; or neither, if one fails.

        Pins of the VMs in `repin`, whose policies change, get the slots that the new ones have for
        their names, or go: a slot must never come to stand for another name.
        """
        before = scope()
        await self.store.commit(*do)
        async with self.undo() as back:
            back.push("the store", lambda: self.store.commit(*undo))
            given = {vm_id: self.pins.everything(vm_id) for vm_id in repin}
            change = before.until(scope())
            for vm_id in repin:
                moved = self._move_pins(self.view.guests[vm_id])
                change = replace(
                    change, remove=change.remove + moved.remove, add=change.add + moved.add
                )
            back.push("pins", lambda: self._bring_back(given))
            await self.tell(change)

    async def change_settled(
        self,
        scope: Callable[[], Wanted],
        do: Sequence[Write],
        undo: Sequence[Write],
        vm_ids: Collection[str],
        repin: Collection[str] = (),
    ) -> int:
        """Change both, and cut what the VMs then may not have open any more; or do none of it.

        Returns how many connections were cut. Killed in between, the ports stay marked as
        unsettled, and the next start cuts.
        """
        settled, unsettled = (
            self.store.leases.settle(vm_ids, unsettled=flag) for flag in (False, True)
        )
        async with self.undo() as back:
            await self.change(scope, [*do, unsettled], [*undo, settled], repin)
            back.push(
                "the change", lambda: self.change(scope, [*undo, settled], [*do, unsettled], repin)
            )
            cut = await settle(self.kernel, self.view, self.pins, vm_ids)
            await self.store.commit(settled)
        return cut

    async def tell(self, change: Change, *, write: bool = True) -> None:
        """Have the rules changed, if they are there; a table that is gone is written anew.

        Not so without `write`, for who does not hold the turn: what it would write may be out of
        date when it is written.
        """
        if not self.standing or not any(vars(change).values()):
            return
        try:
            await self.kernel.change(change)
        except KernelError as error:
            gone = error.errno == errno.ENOENT
            if error.errno is None or (gone and not write):
                self.suspect(Matter.RULES)  # without an answer, it may have been done
            if not gone or not write:
                raise
            await self.write_tables(gone=True)

    async def write_tables(self, *, gone: bool) -> None:
        """Put our tables in place, with all that they must hold, and the pins that are live.

        Where they were `gone`, guests could open what they like: that is cut.
        """
        self._gap = self._gap or gone
        await self.kernel.put_contents(await self.everything_wanted(), self._live_pins())
        await self.close_gap()

    async def close_gap(self) -> None:
        """Cut what was opened while our tables were gone, if that is still to be done."""
        if self._gap:
            await settle(self.kernel, self.view, self.pins, self.view.guests.keys())
            self._gap = False

    async def everything_wanted(self) -> Contents:
        """Return all that our tables must hold; on a thread, for 4,000 ports take 0.25 s."""
        return await asyncio.to_thread(self.wants.everything)

    def policies(self, *policies: Policy | None) -> tuple[int, ...]:
        """Return the numbers of policies, for a scope that they come or go with."""
        return tuple(self.store.policies.number(one) for one in policies if one is not None)

    def _move_pins(self, guest: Guest) -> Change:
        renewal = self.pins.move(guest.vm_id, guest.policy)
        return Change(
            remove=of_pins(guest, dict.fromkeys(renewal.remove, 0.0)),
            add=of_pins(guest, renewal.add),
        )

    async def _bring_back(self, given: Mapping[str, Mapping[Key, tuple[str, float]]]) -> None:
        for vm_id, keys in given.items():
            self.pins.restore(vm_id, keys)

    def _live_pins(self) -> list[Element]:
        return [
            element
            for vm_id, guest in self.view.guests.items()
            for element in of_pins(guest, self.pins.live(vm_id))
        ]


def of_pins(guest: Guest, keys: Mapping[Key, float]) -> tuple[Element, ...]:
    """Return the elements of a guest's pins, each with the seconds that it lasts."""
    own = {address.version: address for address in guest.addresses}
    return tuple(
        elements.of_pin(own[address.version], address, slot, seconds)
        for (address, slot), seconds in keys.items()
        if address.version in own
    )
