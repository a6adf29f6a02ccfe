"""All guests: one supervised follower for each live VM, and what they found."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from nexus_gateway.guest import Follower, Guest, State, Timing
from nexus_gateway.reports import Reporter
from nexus_gateway.vms import is_live

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.notice import Notice
    from nexus_gateway.vmm import Vmm
    from nexus_gateway.vms import Vms
    from nexus_gateway.vsock import Dial

_log = logging.getLogger(__name__)
_RETRY_AFTER_DEFECT = 30.0


class Guests:
    """Follows the guest of every live VM."""

    def __init__(self, vms: Vms, vmm: Vmm, dial: Dial, timing: Timing, changed: Notice) -> None:
        self._vms = vms
        self._vmm = vmm
        self._dial = dial
        self._timing = timing
        self._changed = changed
        self._known: dict[str, Guest] = {}
        self._following: dict[str, tuple[asyncio.Task[None], ...]] = {}

    def of(self, vm: Vm) -> Guest:
        """Return what is known of the guest in this boot of the VM."""
        known = self._known.get(vm.id)
        return known if known is not None and known.boot == vm.boot else Guest(vm.id, vm.boot)

    async def ready(self, vm: Vm) -> Guest:
        """Return the guest once it is ready, in this boot of the VM or a later one.

        NotFound (VM_NOT_FOUND) or FailedPrecondition (VM_NOT_LIVE) if the VM goes meanwhile.
        """
        while (guest := self.of(vm)).state is not State.READY:
            await self._changed.wait()
            vm = await self._vms.find_live(vm.id)
        return guest

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
                for task in self._following.pop(vm_id):
                    task.cancel()
                del self._known[vm_id]
        for vm_id, vm in live.items():
            if vm_id not in self._known:
                self._known[vm_id] = Guest(vm_id, vm.boot)
                self._following[vm_id] = tuple(
                    tasks.create_task(_kept_up(vm, work)) for work in self._work(vm)
                )

    def _work(self, vm: Vm) -> tuple[Callable[[], Awaitable[None]], ...]:
        follower = Follower(vm, self._dial, self._timing, self._told)
        reporter = Reporter(vm, lambda: self.of(vm), self._vms, self._vmm, self._changed)
        return follower.run, reporter.run

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
