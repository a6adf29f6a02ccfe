"""Which VMs are in use: vmm is told, for it ends those that are idle (TimeToLive in vmm.proto).

It is told beside: who uses a VM never waits for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nexus_rpc.errors import DeadlineExceeded, NexusError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexus_gateway.vmm import Vmm
    from nexus_gateway.vms import Vms

EVERY = 5.0
"""Seconds between two calls about one VM: half of the shortest idle time."""

_log = logging.getLogger(__name__)


class Uses:
    """Tells vmm of uses: at once, every `every` seconds while they last, and of their end."""

    def __init__(self, vms: Vms, vmm: Vmm, *, every: float = EVERY) -> None:
        self._vms = vms
        self._vmm = vmm
        self._every = every
        self._under_way: Counter[str] = Counter()
        self._untold: set[str] = set()
        self._telling: set[str] = set()
        self._begun: asyncio.Queue[str] = asyncio.Queue()

    @contextmanager
    def of(self, vm_id: str) -> Iterator[None]:
        """Have the VM be in use to the end of the block."""
        self._under_way[vm_id] += 1
        self._note(vm_id)
        try:
            yield
        finally:
            self._under_way[vm_id] -= 1
            if not self._under_way[vm_id]:
                del self._under_way[vm_id]
            self._note(vm_id)

    async def run(self) -> None:
        """Tell, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._tell(await self._begun.get()))

    def _note(self, vm_id: str) -> None:
        self._untold.add(vm_id)
        if vm_id not in self._telling:
            self._telling.add(vm_id)
            self._begun.put_nowait(vm_id)

    async def _tell(self, vm_id: str) -> None:
        """Tell of one VM until it is idle and vmm knows all."""
        while vm_id in self._untold or vm_id in self._under_way:
            self._untold.discard(vm_id)
            vm = self._vms.get(vm_id)
            # Looked at anew each time: it may be given an idle time while a command runs.
            if vm is not None and vm.spec.ttl.idle_seconds:
                await self._touch(vm_id)
            await asyncio.sleep(self._every)
        self._telling.discard(vm_id)

    async def _touch(self, vm_id: str) -> None:
        try:
            await self._vmm.touch(vm_id)
        except (Unavailable, DeadlineExceeded):
            self._untold.add(vm_id)  # vmm hears of it when it is back
        except NexusError as error:
            _log.warning("vmm does not take that a VM is used: %s", error, extra={"vm": vm_id})
