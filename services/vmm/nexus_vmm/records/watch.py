"""The present of all VMs, and telling watchers how it changes.

A watcher is nothing but the revision up to which it knows all: who changes a VM waits for none, and
a slow one takes no memory. It is told each of the last changes; one that is further behind is told
of each VM that changed what it is now, and of those that were deleted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from itertools import chain, takewhile
from typing import TYPE_CHECKING, NamedTuple

from nexus_rpc.errors import Unavailable
from nexus_vmm.records.changes import KEPT, Gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from nexus_vmm.records.changes import Log
    from nexus_vmm.vm import Vm

RECENT = 512
"""The last changes, of which a watcher is told each."""


_NEVER = -1
"""A revision after which nothing is known."""


class Synced:
    """The mark that the present has been told."""


class Missed:
    """The mark that deletions are forgotten of which the watcher was not told."""


class Told(NamedTuple):
    """What a watcher is told; `revision` is 0 where that tells nothing to carry on after."""

    revision: int
    what: Vm | Gone | Synced | Missed


class Hub:
    """Holds the present as last stored, and lets watchers see each change, on the event loop."""

    def __init__(self) -> None:
        # Both in the order of revisions.
        self._vms: dict[str, Vm] = {}
        self._gone: OrderedDict[str, Gone] = OrderedDict()
        self._recent: deque[Vm | Gone] = deque()
        self._last = 0
        # What a watcher must know at least, to be told all that it missed, or each of it.
        self._forgotten = 0
        self._before_recent = 0
        self._gaps: tuple[tuple[int, int], ...] = ()
        self._changed = asyncio.Event()
        self._closed = False

    def load(self, vms: Iterable[Vm], log: Log) -> None:
        """Begin with what is stored."""
        self._vms = {vm.id: vm for vm in sorted(vms, key=_revision)}
        self._gone = OrderedDict((gone.id, gone) for gone in log.gone)
        self._last = self._before_recent = log.last
        self._forgotten = log.forgotten
        self._gaps = log.gaps

    def publish(self, change: Vm | Gone) -> None:
        """Make `change`, which is later than all before, the present and tell it. Never waits."""
        self._vms.pop(change.id, None)
        self._gone.pop(change.id, None)
        if isinstance(change, Gone):
            self._gone[change.id] = change
            if len(self._gone) > KEPT:
                self._forgotten = self._gone.popitem(last=False)[1].change
        else:
            self._vms[change.id] = change
        if len(self._recent) == RECENT:
            self._before_recent = self._recent.popleft().change
        self._recent.append(change)
        self._last = change.change
        self._wake()

    def close(self) -> None:
        """End all watches, which have no end of their own: vmm is stopping."""
        self._closed = True
        self._wake()

    def get(self, vm_id: str) -> Vm | None:
        """Return a VM as it is now."""
        return self._vms.get(vm_id)

    def present(self) -> list[Vm]:
        """Return every VM as it is now, oldest first."""
        return sorted(self._vms.values(), key=lambda vm: vm.seq)

    async def watch(self, after: int = 0) -> AsyncIterator[Told]:
        """Yield the present, `Synced`, then each change, for ever (see WatchVms).

        `after` is the last revision that the caller knows of, 0 for none. Raises Unavailable
        (STOPPING) after `close`.
        """
        known = (_NEVER if self._was_never(after) else after) or None
        synced = False
        while True:
            changed = self._changed
            if known is None or not self._forgotten <= known <= self._last:
                if known is not None:
                    yield Told(0, Missed())
                present, known, synced = self.present(), self._last, False
                for vm in present:
                    yield Told(0, vm)
            else:
                for change in self._since(known):
                    known = change.change
                    yield Told(known, change)
            if not synced:
                yield Told(known, Synced())
                synced = True
            if self._closed:
                raise Unavailable("STOPPING", "vmm is stopping; watch again once it is back")
            await changed.wait()

    def _was_never(self, revision: int) -> bool:
        """Whether no change here had the revision: it is of a database that was put aside."""
        return any(after < revision < before for after, before in self._gaps)

    def _since(self, known: int) -> list[Vm | Gone]:
        """Return the changes after the revision `known`, in their order."""
        if known >= self._before_recent:
            return _after(known, reversed(self._recent))[::-1]
        vms = _after(known, reversed(self._vms.values()))
        gone = _after(known, reversed(self._gone.values()))
        return sorted(chain(vms, gone), key=_revision)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _after(known: int, changes: Iterable[Vm | Gone]) -> list[Vm | Gone]:
    """Return the changes after the revision `known`, of some that are in order, the last first."""
    return list(takewhile(lambda change: change.change > known, changes))


def _revision(change: Vm | Gone) -> int:
    return change.change
