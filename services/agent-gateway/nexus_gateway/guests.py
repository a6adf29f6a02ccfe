"""All guests: one supervised follower for each live VM, and what they found."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_gateway.farewell import Farewell
from nexus_gateway.guest import Follower, Guest, State, Timing
from nexus_gateway.reports import Reporter
from nexus_gateway.vms import is_live
from nexus_rpc.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.notice import Notice
    from nexus_gateway.vmm import Vmm
    from nexus_gateway.vms import Vms
    from nexus_gateway.vsock import Dial

_log = logging.getLogger(__name__)
_RETRY_AFTER_DEFECT = 30.0


@dataclass(frozen=True)
class _Following:
    """What follows the guest in one boot of a VM."""

    follower: Follower
    tasks: tuple[asyncio.Task[None], ...]


class Guests:
    """Follows the guest of every live VM."""

    def __init__(self, vms: Vms, vmm: Vmm, dial: Dial, timing: Timing, changed: Notice) -> None:
        self._vms = vms
        self._vmm = vmm
        self._dial = dial
        self._timing = timing
        self._changed = changed
        self._known: dict[str, Guest] = {}
        self._following: dict[str, _Following] = {}

    def of(self, vm: Vm) -> Guest:
        """Return what is known of the guest in this boot of the VM."""
        known = self._known.get(vm.id)
        return known if known is not None and known.boot == vm.boot else Guest(vm.id, vm.boot)

    async def ready(self, vm: str) -> Guest:
        """Return the guest of the VM with that id or name once it is ready; wait for vmm too.

        NotFound (VM_NOT_FOUND) or FailedPrecondition (VM_NOT_LIVE), also if that comes meanwhile.
        """
        known = await self._live(vm)
        while (guest := self.of(known)).state is not State.READY:
            await self._changed.wait()
            known = await self._vms.find_live(known.id)
        return guest

    async def _live(self, vm: str) -> Vm:
        while True:
            try:
                return await self._vms.find_live(vm, fresh=True)
            except Unavailable:
                await self._vms.synced()

    def why_not_ready(self, vm: str) -> str:
        """Say what `ready` waits for, for people."""
        known = self._vms.look_up(vm)
        if known is None:
            return "vmm does not answer, and the VM is not known without it"
        guest = self.of(known)
        return f"the guest is {guest.state.name}: {guest.reason}"

    def count(self) -> Counter[State]:
        """Return how many guests are in which state."""
        return Counter(guest.state for guest in self._known.values())

    async def run(self) -> None:
        """Start and end followers as VMs come and go, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._compare(tasks)
                await self._changed.wait()

    def _compare(self, tasks: asyncio.TaskGroup) -> None:
        live = {vm.id: vm for vm in self._vms if is_live(vm)}
        for vm_id, guest in tuple(self._known.items()):
            if vm_id not in live or live[vm_id].boot != guest.boot:
                for task in self._following.pop(vm_id).tasks:
                    task.cancel()
                del self._known[vm_id]
                # Who was woken before this still saw it.
                self._changed.post()
        for vm_id, vm in live.items():
            if vm_id in self._known:
                self._following[vm_id].follower.renew(vm)
            else:
                self._known[vm_id] = Guest(vm_id, vm.boot)
                self._following[vm_id] = self._follow(vm, tasks)

    def _follow(self, vm: Vm, tasks: asyncio.TaskGroup) -> _Following:
        follower = Follower(vm, self._dial, self._timing, self._told)
        reporter = Reporter(vm, lambda: self.of(vm), self._vms, self._vmm, self._changed)
        farewell = Farewell(vm, self._vms, self._dial, self._changed)
        works = (follower.run, reporter.run, farewell.run)
        return _Following(follower, tuple(tasks.create_task(_kept_up(vm, work)) for work in works))

    def _told(self, guest: Guest) -> None:
        known = self._known.get(guest.vm_id)
        if known is not None and known.boot == guest.boot:
            self._known[guest.vm_id] = guest
            self._changed.post()


async def _kept_up(vm: Vm, work: Callable[[], Awaitable[None]]) -> None:
    """Do endless work, again after a while if it fails: one guest must not cost the others."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  # a defect: it is logged, and tried again
            _log.exception("following a guest failed", extra={"vm": vm.id})
        await asyncio.sleep(_RETRY_AFTER_DEFECT)
