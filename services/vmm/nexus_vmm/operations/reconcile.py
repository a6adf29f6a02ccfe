"""Making store and world agree, when vmm starts.

Whatever happened while it was away, or to the operation that it was killed in, is measured and
carried to its end: machines that run are adopted, what ended is recorded, leftovers are removed.
A disk with data in it is removed by DeleteVm alone: a database that was lost must not take the
disks with it. Nothing here needs room on the disk to go on: what cannot be recorded for want of it
is recorded later.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition, ResourceExhausted, Unavailable
from nexus_rpc.ids import is_vm_id
from nexus_vmm.operations.work import patiently
from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import TAKEN, Exit, Goal

if TYPE_CHECKING:
    from nexus_vmm.driver import Driver
    from nexus_vmm.operations.supervisor import Supervisor
    from nexus_vmm.operations.work import Work
    from nexus_vmm.records.store import Store
    from nexus_vmm.vm import Boot, Vm

_AT_ONCE = 8
_AWAY = "after a restart of vmm"
_log = logging.getLogger(__name__)


async def reconcile(store: Store, driver: Driver, supervisor: Supervisor, host_boot: str) -> None:
    """Repair what differs; runs before the first call is served.

    `host_boot` is the id of the boot of the host: another one than last time starts the VMs that
    are to run after a boot. What else a restart policy has pending goes on as well.
    A VM that cannot be repaired is reported and left for the next start, and tried again in the
    background if it is only room that is missing: the others count more. So is one whose record is
    damaged; its process and disk are not touched.
    Raises Unavailable, alone or in a group, when systemd does not answer: then nothing can be
    said of any VM.
    """
    work = supervisor.work
    rebooted, noted = await _note_boot(store, host_boot)
    vms = await store.all()
    strays = await driver.inventory() - {vm.id for vm in vms}
    if any(not is_vm_id(vm.id) for vm in vms):
        _log.error("the id of a VM cannot be read, so what seems to be of none stays: %s", strays)
        strays = set()
    limit = asyncio.Semaphore(_AT_ONCE)
    repairs = _Repairs(store, driver, supervisor, rebooted)

    async def repair(vm: Vm) -> None:
        async with limit:
            try:
                await repairs.repair(vm)
            except ResourceExhausted as error:
                _log.error("VM %s cannot be repaired yet: %s", vm.id, error)
                work.start(_repair_later(vm, repairs, store, work))
            except (FailedPrecondition, OSError) as error:
                _log.error("VM %s cannot be repaired: %s", vm.id, error)
                if vm.state in LIVE:
                    supervisor.keeper.watch(vm)
                else:
                    supervisor.keeper.schedule(vm)

    async def clear(vm_id: str) -> None:
        async with limit:
            _log.warning("removing what is left of %s, which is no VM", vm_id)
            try:
                await driver.kill(vm_id)
                if not await driver.discard(vm_id):
                    # No operation leaves that behind: rather was the database lost or put back.
                    _log.error("the disk of %s holds data and stays: no VM here has it", vm_id)
            except (FailedPrecondition, OSError) as error:
                _log.error("what is left of %s cannot be removed: %s", vm_id, error)

    async with asyncio.TaskGroup() as tasks:
        for vm in vms:
            tasks.create_task(repair(vm))
        for vm_id in sorted(strays):
            tasks.create_task(clear(vm_id))
    if not noted:
        # Not before: it starts VMs, and a repair holds no lock.
        work.start(_note_boot_later(store, supervisor, host_boot))


async def _note_boot(store: Store, host_boot: str) -> tuple[bool, bool]:
    """Record the boot of the host; return if it is not that of before, and if it is recorded."""
    try:
        return await store.host_booted(host_boot), True
    except ResourceExhausted as error:
        _log.error("the boot of the host cannot be recorded yet: %s", error)
    return await store.host_boot() != host_boot, False


async def _note_boot_later(store: Store, supervisor: Supervisor, host_boot: str) -> None:
    async def note() -> None:
        await store.host_booted(host_boot)
        for vm in await store.all():
            supervisor.keeper.schedule(vm)

    await patiently("the boot of the host cannot be recorded yet", note)


async def _repair_later(vm: Vm, repairs: _Repairs, store: Store, work: Work) -> None:
    async def again() -> None:
        async with work.lock(vm.id):
            now = await store.look(vm.id)
            # Whatever a caller had done with it meanwhile, began with a look at how it is.
            if now and (now.state, now.goal, now.boot) == (vm.state, vm.goal, vm.boot):
                await repairs.repair(now)

    try:
        await patiently(f"VM {vm.id} cannot be repaired yet", again)
    except (FailedPrecondition, Unavailable, OSError) as error:
        _log.error("VM %s cannot be repaired: %s", vm.id, error)


@dataclass(frozen=True)
class _Repairs:
    """Brings one VM and its machine together. `rebooted`: no process outlived the host's boot."""

    store: Store
    driver: Driver
    supervisor: Supervisor
    rebooted: bool

    async def repair(self, vm: Vm) -> None:
        if vm.damage and not (vm.goal is Goal.DELETE and is_vm_id(vm.id)):
            _log.error("VM %s is left as it is: %s", vm.id, vm.damage)
        elif vm.goal is Goal.DELETE:
            _log.info("VM %s: finishing its deletion", vm.id)
            if vm.state in LIVE and not vm.damage:
                vm = await self.supervisor.steps.put_down(vm, 0, f"as its time ended, {_AWAY}")
            await self.supervisor.steps.remove(vm, None)
        elif vm.state in LIVE:
            await self._repair_live(vm)
        elif vm.goal is Goal.RUN:
            await self._finish_start(vm)
        else:
            await self.driver.kill(vm.id)
            self.supervisor.keeper.schedule(vm)

    async def _repair_live(self, vm: Vm) -> None:
        now = await self.driver.describe(vm.id)
        keeper = self.supervisor.keeper
        if vm.goal is Goal.AGAIN:
            await self._finish_second_boot(vm, now)
        elif isinstance(now, Exit):
            if self.rebooted and now.cause == "unknown":
                now = Exit("unknown", "the host went down, and the VM with it")
            await keeper.ended(vm, now)
        elif now.boot != vm.boot:
            await self.driver.kill(vm.id)
            await keeper.ended(vm, TAKEN)
        elif vm.goal is Goal.STOP:
            keeper.schedule(await self.supervisor.steps.put_down(vm, 0, f"as asked, {_AWAY}"))
        else:
            _log.info("VM %s: adopted, pid %d", vm.id, now.pid)
            keeper.watch(await self._finish_halt(vm))

    async def _finish_second_boot(self, vm: Vm, now: Boot | Exit) -> None:
        """Carry on where the VM was being booted once more (see `keeper`)."""
        boot = await self.driver.adopt(vm.id)
        if boot and boot.boot != vm.boot:
            reason = f"booted once more, and adopted {_AWAY}"
            again = await self.store.started(None, vm.id, boot, reason, Event.BOOT_AGAIN)
            self.supervisor.keeper.watch(again)
            return
        why = "vmm was restarted while it was booting this VM once more"
        end = now if isinstance(now, Exit) else Exit("start", why)
        await self.driver.kill(vm.id)
        await self.supervisor.keeper.ended(vm, Exit("start", why, end.code, end.signal))

    async def _finish_halt(self, vm: Vm) -> Vm:
        """Carry on with a pause or resumption that was under way."""
        if (vm.goal is Goal.PAUSE) == (vm.state is State.PAUSED):
            return vm
        event = Event.PAUSE if vm.goal is Goal.PAUSE else Event.RESUME
        try:
            return await self.supervisor.steps.halt(vm, event, None, f"as asked, {_AWAY}")
        except (FailedPrecondition, Unavailable) as error:
            _log.error("VM %s: %s that was under way did not end: %s", vm.id, event, error)
            return vm

    async def _finish_start(self, vm: Vm) -> None:
        boot = await self.driver.adopt(vm.id)
        if boot:
            vm = await self.store.started(None, vm.id, boot, f"adopted {_AWAY}")
            self.supervisor.keeper.watch(vm)
            return
        await self.driver.kill(vm.id)
        if vm.restarts.due:
            self.supervisor.keeper.schedule(await self.store.put_back(vm))
            return
        end = Exit("start", "vmm was restarted while it was starting this VM")
        await self.store.rested(vm.id, Event.START_FAILED, end)
