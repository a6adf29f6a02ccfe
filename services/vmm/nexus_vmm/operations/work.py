"""Operations under way.

An operation goes on to its end even if its caller hangs up: half a start is of use to nobody, and
the caller's repeat finds it done.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from nexus_rpc.errors import ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


ROOM_SECONDS = 5.0
"""After which is tried again what there was no room for: on the disk, or in a budget."""


async def patiently(what: str, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `act`, again and again while there is no room for it; `what` is logged, and why, once."""
    told = ""
    while True:
        try:
            return await act()
        except ResourceExhausted as error:
            if error.message != told:
                _log.error("%s: %s", what, error)
            told = error.message
        await asyncio.sleep(ROOM_SECONDS)


class Work:
    """Runs operations in the service's task group, one at a time for each VM."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        # A lock lives as long as someone holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, vm_id: str) -> asyncio.Lock:
        """Return the lock of a VM. Keep the reference while it is in use."""
        lock = self._locks.get(vm_id)
        if lock is None:
            lock = self._locks[vm_id] = asyncio.Lock()
        return lock

    async def run(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Return what `operation` returns; if the caller is cancelled, it goes on without it."""
        outcome: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            self.start(_deliver(operation, outcome))
        except Unavailable:
            operation.close()
            raise
        return await asyncio.shield(outcome)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start background work; if it fails, the service ends. Raises Unavailable at a stop."""
        try:
            self._tasks.create_task(work)
        except RuntimeError:
            work.close()
            raise Unavailable("STOPPING", "vmm is stopping; repeat the call") from None


async def _deliver(operation: Coroutine[Any, Any, _T], outcome: asyncio.Future[_T]) -> None:
    try:
        outcome.set_result(await operation)
    except asyncio.CancelledError:
        outcome.cancel()
        raise
    except Exception as error:  # noqa: BLE001  # told by whoever called, or by nobody any more
        _log.debug("an operation failed: %r", error)
        outcome.set_exception(error)
