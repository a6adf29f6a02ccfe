"""TAPs, repaired: those that ports have are there as they must be, and no others of ours."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError, Tap
from nexus_netd.operations.network_repair import Repaired
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from nexus_netd.model import Guest
    from nexus_netd.operations.network_repair import NetworkRepair
    from nexus_netd.operations.state import State

_log = logging.getLogger(__name__)


class TapRepair:
    """What looks at TAPs."""

    def __init__(self, state: State, networks: NetworkRepair) -> None:
        self._state = state
        self._networks = networks
        self._kernel = state.kernel
        self._view = state.view

    async def everything(self) -> list[Repaired]:
        """Have the TAPs of all ports, and no other with our mark or on our bridges."""
        done: list[Repaired] = []
        failures: list[NexusError] = []
        missing = {
            guest.tap: guest
            for vm_id, guest in self._view.guests.items()
            if self._view.ports[vm_id].network not in self._state.problems
        }
        present = dict[str, Tap]()
        for tap in await self._kernel.taps():
            guest = missing.get(tap.name)
            if guest is None and self._waits(tap):
                continue
            if guest is None or not self.is_of(tap, guest):
                done += await self.remove(tap)
            elif tap == Tap.of(guest):
                del missing[tap.name]
            else:
                present[tap.name] = tap
        displaced = []
        for guest in missing.values():
            try:
                have = present.get(guest.tap)
                done += await (self._mend(guest, have) if have else self.tap(guest))
            except NexusError as error:
                if isinstance(error, KernelError) and error.errno == errno.EBUSY:
                    displaced.append(guest)
                else:
                    failures.append(error)
        # Only now, when every name that a port holds is in use, may the kernel choose others.
        for guest in displaced:
            done.append(await self.rename(guest))
        if failures:
            raise failures[0]
        return done

    async def tap(self, guest: Guest) -> list[Repaired]:
        """Have one guest's TAP. KernelError EBUSY: its name is another's by now."""
        have = await self._kernel.tap(guest.tap)
        if have == Tap.of(guest):
            return []
        if have is not None and self.is_of(have, guest):
            return await self._mend(guest, have)
        async with self._kernel.new_tap(guest, guest.tap) as new:
            await new.keep()
        return [self._mended(guest, "made again")]

    async def _mend(self, guest: Guest, have: Tap) -> list[Repaired]:
        want, done = Tap.of(guest), []
        if have.owner != want.owner:
            # Of a release before, when one user had all TAPs. A VM of then keeps it open while it
            # lives; once it lets go the kernel tells, and the TAP is looked at again.
            if await self._kernel.give_tap(guest):
                done.append(self._mended(guest, "given to its VM's own user"))
            have = replace(have, owner=want.owner)
        if have == want:
            return done
        if _lacks_routes_only(have, want):
            # Not taken down for it: a bridge that was down has lost those of all its guests.
            await self._kernel.route(guest)
        else:
            await self._kernel.plug_tap(guest)
        return [*done, self._mended(guest, "repaired")]

    def _mended(self, guest: Guest, how: str) -> Repaired:
        thing, network = f"TAP {guest.tap}", self._view.ports[guest.vm_id].network
        return Repaired(thing, f"{thing} {how}", guest.vm_id, network)

    async def rename(self, guest: Guest) -> Repaired:
        """Make the guest a TAP of another name; vmm's record is out of date from now on."""
        state, port = self._state, self._view.ports[guest.vm_id]
        async with self._kernel.new_tap(guest) as new:
            await state.change(
                lambda: state.wants.of_vms([guest.vm_id], ()),
                [state.store.leases.put(replace(port, tap=new.name))],
                [state.store.leases.put(port)],
            )
            await new.keep()
        _log.warning("VM %s: TAP %s is another's, now %s", guest.vm_id, guest.tap, new.name)
        return Repaired(
            f"TAP {guest.tap}",
            f"TAP {new.name} made in the place of {guest.tap}, which is another's",
            guest.vm_id,
            port.network,
        )

    def is_of(self, tap: Tap, guest: Guest) -> bool:
        """Whether the TAP of that name is the guest's; its mark may have been wiped off."""
        return tap.vm_id == guest.vm_id or (tap.vm_id is None and self._is_ours(tap))

    async def of(self, vm_id: str) -> list[Repaired]:
        """Have the TAP of a VM's port, under another name if that must be."""
        guest = self._view.guests.get(vm_id)
        if guest is None or self._view.ports[vm_id].network in self._state.problems:
            return []
        try:
            return await self.tap(guest)
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
        return [await self.rename(guest)]

    async def remove(self, tap: Tap) -> list[Repaired]:
        """Remove a TAP that no port has, but not the routes of one that has its addresses now."""
        free = frozenset(one for one in tap.addresses if self._view.at_address(one) is None)
        if not self._is_ours(tap) or not await self._kernel.remove_tap(
            replace(tap, addresses=free)
        ):
            return []
        what = f"TAP {tap.name} removed: no port has it"
        return [Repaired(f"TAP {tap.name}", what, tap.vm_id or "")]

    def _is_ours(self, tap: Tap) -> bool:
        return tap.vm_id is not None or (
            tap.bridge is not None and self._networks.at_bridge(tap.bridge) is not None
        )

    def _waits(self, tap: Tap) -> bool:
        """Whether it belongs to a port whose network the host is not fit for now."""
        port = self._view.ports.get(tap.vm_id or "")
        return port is not None and port.tap == tap.name and port.network in self._state.problems


def _lacks_routes_only(have: Tap, want: Tap) -> bool:
    return have.addresses < want.addresses and replace(have, addresses=want.addresses) == want
