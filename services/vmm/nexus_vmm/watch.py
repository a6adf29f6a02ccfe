"""The present of all VMs, and telling watchers how it changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nexus_rpc.errors import ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexus_vmm.vm import Vm

LIMIT = 1024
"""Events that a watcher may be behind (see WatchVms)."""


class Synced:
    """The mark that the present has been told."""


class Gone(str):
    """Id of a VM that was deleted."""

    __slots__ = ()


class _Watcher:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[Vm | Gone | None] = asyncio.Queue(LIMIT)
        self.lagged = asyncio.Event()


class Hub:
    """Holds the present as last stored, and passes each change to every watcher.

    Lives on the event loop: subscribing takes the present and joins the changes in one step, so
    a watcher sees no gap, and no change twice.
    """

    def __init__(self) -> None:
        self._present: dict[str, Vm] = {}
        self._watchers: set[_Watcher] = set()
        self._closed = False

    def publish(self, change: Vm | Gone) -> None:
        """Make `change` the present and tell it. Never waits."""
        if isinstance(change, Gone):
            self._present.pop(change, None)
        else:
            self._present[change.id] = change
        self._tell(change)

    def close(self) -> None:
        """End all watches, which have no end of their own: vmm is stopping."""
        self._closed = True
        self._tell(None)

    def get(self, vm_id: str) -> Vm | None:
        """Return a VM as it is now."""
        return self._present.get(vm_id)

    def present(self) -> list[Vm]:
        """Return every VM as it is now, oldest first."""
        return sorted(self._present.values(), key=lambda vm: vm.seq)

    async def watch(self) -> AsyncIterator[Vm | Gone | Synced]:
        """Yield the present, `Synced`, then each change, for ever.

        Raises ResourceExhausted (WATCH_LAGGED) when the caller falls `LIMIT` events behind, and
        Unavailable (STOPPING) after `close`.
        """
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            for vm in self.present():
                yield vm
            yield Synced()
            while not watcher.lagged.is_set() and not self._closed:
                change = await watcher.queue.get()
                if change is not None:
                    yield change
        finally:
            self._watchers.discard(watcher)
        if self._closed:
            raise Unavailable("STOPPING", "vmm is stopping; watch again once it is back")
        raise ResourceExhausted(
            "WATCH_LAGGED",
            f"this watcher fell more than {LIMIT} events behind; watch again from the present",
        )

    def _tell(self, change: Vm | Gone | None) -> None:
        for watcher in list(self._watchers):
            try:
                watcher.queue.put_nowait(change)
            except asyncio.QueueFull:
                watcher.lagged.set()
                self._watchers.discard(watcher)
