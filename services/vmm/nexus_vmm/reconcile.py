"""Making store and world agree, when vmm starts.

Whatever happened while it was away, or to the operation that it was killed in, is measured and
carried to its end: machines that run are adopted, what ended is recorded, leftovers are removed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError
from nexus_vmm.states import LIVE, Event
from nexus_vmm.vm import Exit, Goal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nexus_vmm.driver import Driver
    from nexus_vmm.store import Store
    from nexus_vmm.supervisor import Supervisor
    from nexus_vmm.vm import Vm

_AT_ONCE = 8
_log = logging.getLogger(__name__)


async def reconcile(store: Store, driver: Driver, supervisor: Supervisor) -> None:
    """Repair what differs; runs before the first call is served.

    A VM that cannot be repaired is reported and left for the next start: the others count more.
    """
    vms = await store.all()
    strays = await driver.inventory() - {vm.id for vm in vms}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def guarded(vm_id: str, repair: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            try:
                await repair()
            except (NexusError, OSError) as error:
                _log.error("VM %s cannot be repaired: %s", vm_id, error)

    await asyncio.gather(
        *(guarded(vm.id, lambda vm=vm: _repair(vm, store, driver, supervisor)) for vm in vms),  # type: ignore[misc]
        *(guarded(vm_id, lambda vm_id=vm_id: _clear(vm_id, driver)) for vm_id in sorted(strays)),  # type: ignore[misc]
    )


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


async def _repair_live(vm: Vm, driver: Driver, supervisor: Supervisor) -> None:
    now = await driver.describe(vm.id)
    if isinstance(now, Exit):
        await supervisor.ended(vm, now.reason)
    elif now.boot != vm.boot:
        await driver.kill(vm.id)
        await supervisor.ended(vm, "its unit was restarted by someone else")
    elif vm.goal is Goal.STOP:
        await driver.kill(vm.id)
        await supervisor.ended(vm, "stopped as asked, after a restart of vmm")
    else:
        _log.info("VM %s: adopted, pid %d", vm.id, now.pid)
        supervisor.watch(vm)


async def _finish_start(vm: Vm, store: Store, driver: Driver, supervisor: Supervisor) -> None:
    boot = await driver.adopt(vm.id)
    if boot:
        supervisor.watch(await store.started(None, vm.id, boot, "adopted after a restart of vmm"))
        return
    await driver.kill(vm.id)
    await store.rested(vm.id, Event.START_FAILED, "vmm was restarted while it was starting this VM")


async def _clear(vm_id: str, driver: Driver) -> None:
    _log.warning("removing what is left of %s, which is no VM", vm_id)
    await driver.kill(vm_id)
    await driver.delete(vm_id)
