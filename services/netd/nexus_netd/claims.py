"""Ports that no VM has: each is given a time to be claimed in, then it is released.

A VM's port is attached before the VM is made. A client that ends in between leaves it behind.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus_netd.feed import Missed
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from collections.abc import Set as AbstractSet

    from nexus_netd.feed import Happening
    from nexus_netd.netd import Netd

_log = logging.getLogger(__name__)

CLAIM_SECONDS = 600.0
"""As netd.proto has it for AttachPort. By the loop's clock: the host's may jump, at boot above all.
"""


class Claims:
    """Releases the ports whose VM is not among those `known`, which is kept up to date.

    Only while it is `open`: while all that vmm has is known, and vmm is heard.
    """

    def __init__(self, netd: Netd, known: AbstractSet[str]) -> None:
        self._netd = netd
        self._known = known
        self._open = False
        # Since when, the longest first: what is added is added last.
        self._unclaimed: dict[str, float] = {}
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Release each port when its time is up, for ever."""
        with self._netd.state.feed.watch() as happenings:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(happenings))
                tasks.create_task(self._release_in_time())

    def open(self) -> None:
        """All that vmm has is known: begin to count for the ports that no VM has."""
        self._open = True
        for vm_id in self._netd.view().ports:
            self._count(vm_id)

    def close(self) -> None:
        """Vmm is not heard any more: nobody can tell whether a port has a VM."""
        self._open = False
        self._unclaimed.clear()
        self._some.clear()

    def claim(self, vm_id: str) -> None:
        """The VM is there, or the port is not."""
        self._unclaimed.pop(vm_id, None)
        if not self._unclaimed:
            self._some.clear()

    async def release(self, vm_id: str, why: str) -> None:
        """Release a VM's port, if it has one; one that cannot be is tried again."""
        try:
            if await self._netd.detach(vm_id):
                _log.info("port of VM %s released: %s", vm_id, why)
        except NexusError as error:
            _log.warning("port of VM %s not released: %s", vm_id, error)
            self.claim(vm_id)
            self._count(vm_id)

    def _count(self, vm_id: str) -> None:
        if self._open and vm_id not in self._known and vm_id not in self._unclaimed:
            self._unclaimed[vm_id] = asyncio.get_running_loop().time()
            self._some.set()

    async def _watch(self, happenings: AsyncIterable[Happening | Missed]) -> None:
        async for happening in happenings:
            if isinstance(happening, Missed):
                for vm_id in self._netd.view().ports:
                    self._count(vm_id)
            elif happening.what == "attached":
                self._count(happening.vm_id)
            elif happening.what == "detached":
                self.claim(happening.vm_id)

    async def _release_in_time(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            while not self._unclaimed:
                await self._some.wait()
            vm_id, since = next(iter(self._unclaimed.items()))
            await asyncio.sleep(since + CLAIM_SECONDS - now())
            if self._unclaimed.get(vm_id) == since:
                self.claim(vm_id)
                await self.release(vm_id, f"in {CLAIM_SECONDS:.0f} s no VM has claimed it")
