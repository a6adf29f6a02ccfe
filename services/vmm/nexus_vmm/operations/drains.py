"""Stopping all VMs because the host shuts down."""

from __future__ import annotations

import asyncio
import logging
from math import ceil
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError
from nexus_vmm.states import LIVE

if TYPE_CHECKING:
    from nexus_vmm.operations.steps import Steps
    from nexus_vmm.operations.work import Work
    from nexus_vmm.records.store import Store
    from nexus_vmm.vm import Vm

_SECONDS = 420.0
"""What the guests may take together; less than `nexus_vmm.drain` waits for vmm."""

_log = logging.getLogger(__name__)


async def drain(store: Store, steps: Steps, work: Work, grace: float) -> int:
    """Stop every live VM, giving each guest `grace` seconds; return how many that were.

    Those that began last are stopped first, as they may build on the others: one after the other,
    and as many at once as it takes where that could take too long. What is pending by a restart
    policy is put off. Every VM is tried; then raises what the first that could not be stopped
    raised.
    """
    vms = sorted(await store.all(), key=_began, reverse=True)
    live = sum(vm.state in LIVE for vm in vms)
    limit = asyncio.Semaphore(max(1, ceil(live * grace / _SECONDS)))
    failures: list[NexusError | OSError] = []
    stopped = 0

    async def stop(vm_id: str) -> None:
        nonlocal stopped
        async with limit, work.lock(vm_id):
            try:
                vm = await store.drain(vm_id)
                if vm and vm.state in LIVE:
                    await steps.put_down(vm, grace, "as the host shuts down")
                    stopped += 1
            except (NexusError, OSError) as error:
                _log.error("VM %s cannot be stopped: %s", vm_id, error)
                failures.append(error)

    async with asyncio.TaskGroup() as tasks:
        for vm in vms:
            tasks.create_task(stop(vm.id))
    if failures:
        raise failures[0]
    return stopped


def _began(vm: Vm) -> int:
    return vm.restarts.began
