"""Making store and world agree, when vmm starts.

Whatever happened while it was away, or to the operation that it was killed in, is measured and
carried to its end: machines that run are adopted, what ended is recorded, leftovers are removed.
A disk with data in it is removed by DeleteVm alone: a database that was lost must not take the
disks with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition, ResourceExhausted, Unavailable
from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import Exit, Goal

if TYPE_CHECKING:
    from nexus_vmm.driver import Driver
    from nexus_vmm.store import Store
    from nexus_vmm.supervisor import Supervisor
    from nexus_vmm.vm import Vm

_AT_ONCE = 8
_log = logging.getLogger(__name__)


async def reconcile(store: Store, driver: Driver, supervisor: Supervisor, host_boot: str) -> None:
    """Repair what differs; runs before the first call is served.

    `host_boot` is the id of the boot of the host: another one than last time starts the VMs that
    are to run after a boot. What else a restart policy has pending goes on as well.
    A VM that cannot be repaired is reported and left for the next start: the others count more.
    Raises Unavailable, alone or in a group, when systemd does not answer: then nothing can be
    said of any VM.
    """
    await store.host_booted(host_boot)
    vms = await store.all()
    strays = await driver.inventory() - {vm.id for vm in vms}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def repair(vm: Vm) -> None:
        async with limit:
            try:
                await _repair(vm, store, driver, supervisor)
            except (FailedPrecondition, ResourceExhausted, OSError) as error:
                _log.error("VM %s cannot be repaired: %s", vm.id, error)
                if vm.state in LIVE:
                    supervisor.watch(vm)
                else:
                    supervisor.schedule(vm)

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


async def _repair(vm: Vm, store: Store, driver: Driver, supervisor: Supervisor) -> None:
    if vm.goal is Goal.DELETE:
        _log.info("VM %s: finishing its deletion", vm.id)
        await supervisor.remove(vm, None)
    elif vm.state in LIVE:
        await _repair_live(vm, driver, supervisor)
    elif vm.goal is Goal.RUN:
        await _finish_start(vm, store, driver, supervisor)
    else:
        await driver.kill(vm.id)
        supervisor.schedule(vm)


async def _repair_live(vm: Vm, driver: Driver, supervisor: Supervisor) -> None:
    now = await driver.describe(vm.id)
    if isinstance(now, Exit):
        await supervisor.ended(vm, now)
    elif now.boot != vm.boot:
        await driver.kill(vm.id)
        await supervisor.ended(vm, Exit("unknown", "its unit was restarted by someone else"))
    elif vm.goal is Goal.STOP:
        await driver.kill(vm.id)
        await supervisor.ended(vm, Exit("stop", "stopped as asked, after a restart of vmm"))
    else:
        _log.info("VM %s: adopted, pid %d", vm.id, now.pid)
        supervisor.watch(await _finish_halt(vm, supervisor))


async def _finish_halt(vm: Vm, supervisor: Supervisor) -> Vm:
    """Carry on with a pause or resumption that was under way."""
    if (vm.goal is Goal.PAUSE) == (vm.state is State.PAUSED):
        return vm
    event = Event.PAUSE if vm.goal is Goal.PAUSE else Event.RESUME
    try:
        return await supervisor.halt(vm, event, None, "as asked, after a restart of vmm")
    except (FailedPrecondition, Unavailable) as error:
        _log.error("VM %s: %s that was under way did not end: %s", vm.id, event, error)
        return vm


async def _finish_start(vm: Vm, store: Store, driver: Driver, supervisor: Supervisor) -> None:
    boot = await driver.adopt(vm.id)
    if boot:
        supervisor.watch(await store.started(None, vm.id, boot, "adopted after a restart of vmm"))
        return
    await driver.kill(vm.id)
    if vm.restarts.due:
        supervisor.schedule(await store.put_back(vm))
        return
    end = Exit("start", "vmm was restarted while it was starting this VM")
    await store.rested(vm.id, Event.START_FAILED, end)
