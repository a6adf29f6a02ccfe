"""Following vmm: names of VMs, which are live, and ports whose VM is gone, which are released."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus_netd.claims import Claims
from nexus_rpc.errors import NexusError
from nexus_rpc.vms import LIVE, Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexus.vmm.v1.vmm_pb2 import Vm, WatchVmsResponse
    from nexus_netd.netd import Netd

_log = logging.getLogger(__name__)


class Follower:
    """What vmm tells, and what that means for names and ports."""

    def __init__(self, netd: Netd) -> None:
        self._netd = netd
        self._known: set[str] = set()
        self._told: set[str] = set()  # of them, those that are there by the latest present
        self._claims = Claims(netd, self._known)

    async def run(self, events: AsyncIterator[WatchVmsResponse | Lost]) -> None:
        """Take in `events`, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._claims.run())
            async for event in events:
                await self._take(event)

    async def _take(self, event: WatchVmsResponse | Lost) -> None:
        if isinstance(event, Lost):
            # What ran runs on: VMs do not end with vmm.
            _log.info("vmm is not heard: %s", event.error)
            self._claims.close()
            return
        kind = event.WhichOneof("event")
        if kind == "vm":
            self._known.add(event.vm.id)
            self._told.add(event.vm.id)
            self._claims.claim(event.vm.id)
            await self._hear(event.vm)
        elif kind == "deleted_vm_id":
            self._known.discard(event.deleted_vm_id)
            self._told.discard(event.deleted_vm_id)
            self._netd.unheard([event.deleted_vm_id])
            await self._claims.release(event.deleted_vm_id, "its VM was deleted")
        elif kind == "missed":
            self._claims.close()
            self._told.clear()
        elif kind == "synced":
            self._netd.unheard(self._known - self._told)
            self._known &= self._told
            self._claims.open()

    async def _hear(self, vm: Vm) -> None:
        try:
            await self._netd.heard(vm.id, vm.name, live=vm.state in LIVE)
        except NexusError as error:
            # Told again with the VM's next change of state.
            _log.warning("the name of VM %s is not stored: %s", vm.id, error)
