"""Following vmm: names of VMs, which are live, and ports whose VM is gone, which are released.

A VM's port is attached before the VM is made, so a lease without a VM is given ten minutes from
when that was seen first. They are measured here: the host's clock may jump, at boot above all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError
from nexus_rpc.vms import LIVE, Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nexus.vmm.v1.vmm_pb2 import Vm, WatchVmsResponse
    from nexus_netd.netd import Netd

_log = logging.getLogger(__name__)

GRACE = 600.0
SWEEP = 60.0


class Follower:
    """What vmm tells, and the ports that it leaves without a VM. Times are in seconds."""

    def __init__(
        self,
        netd: Netd,
        *,
        sweep: float = SWEEP,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._netd = netd
        self._sweep = sweep
        self._now = now
        self._known: set[str] = set()
        self._told: set[str] = set()  # of them, those that are there by the latest present
        self._alone: dict[str, float] = {}  # since when a lease is known to have no VM
        self._synced = asyncio.Event()

    async def run(self, events: AsyncIterator[WatchVmsResponse | Lost]) -> None:
        """Take in `events`, for ever; sweep while they tell the present."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep_regularly())
            async for event in events:
                await self._take(event)

    async def sweep(self) -> None:
        """Release the ports that have had no VM for ten minutes."""
        before, self._alone = self._alone, {}
        for vm_id in list(self._netd.view().ports):
            # Asked anew for each: while one is released, more may be told.
            if not self._synced.is_set():
                return
            if vm_id in self._known:
                continue
            since = self._alone[vm_id] = before.get(vm_id, self._now())
            if self._now() - since > GRACE:
                await self._release(vm_id, "it has no VM")

    async def _sweep_regularly(self) -> None:
        while True:
            await self._synced.wait()
            await self.sweep()
            await asyncio.sleep(self._sweep)

    async def _take(self, event: WatchVmsResponse | Lost) -> None:
        if isinstance(event, Lost):
            # What ran runs on: VMs do not end with vmm.
            _log.info("vmm is not heard: %s", event.error)
            self._no_more_synced()
            return
        kind = event.WhichOneof("event")
        if kind == "vm":
            self._known.add(event.vm.id)
            self._told.add(event.vm.id)
            await self._hear(event.vm)
        elif kind == "deleted_vm_id":
            self._known.discard(event.deleted_vm_id)
            self._told.discard(event.deleted_vm_id)
            self._netd.unheard([event.deleted_vm_id])
            await self._release(event.deleted_vm_id, "its VM was deleted")
        elif kind == "missed":
            self._no_more_synced()
            self._told.clear()
        elif kind == "synced":
            self._netd.unheard(self._known - self._told)
            self._known &= self._told
            self._synced.set()

    def _no_more_synced(self) -> None:
        self._synced.clear()
        self._alone.clear()

    async def _hear(self, vm: Vm) -> None:
        try:
            await self._netd.heard(vm.id, vm.name, live=vm.state in LIVE)
        except NexusError as error:
            # Told again with the VM's next change of state.
            _log.warning("the name of VM %s is not stored: %s", vm.id, error)

    async def _release(self, vm_id: str, why: str) -> None:
        try:
            if await self._netd.detach(vm_id):
                _log.info("port of VM %s released: %s", vm_id, why)
        except NexusError as error:
            # The lease stays, and a later sweep tries again.
            _log.warning("port of VM %s not released: %s", vm_id, error)
