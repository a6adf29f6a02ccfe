"""One change at a time: a caller may stop waiting, but what was begun is carried to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")


class Turn:
    """A lock whose holder cannot be cancelled."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[object] | None = None

    async def take(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Wait for the turn, then do `work` to its end, even if the caller is cancelled."""
        await self._lock.acquire()
        task = asyncio.ensure_future(self._do(work))
        task.add_done_callback(_seen)
        self._task = task
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for what is under way; nothing more is begun afterwards."""
        await self._lock.acquire()

    async def _do(self, work: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await work()
        finally:
            self._lock.release()


def _seen(task: asyncio.Task[_T]) -> None:
    """Mark a failure as seen: whoever waited for it may have gone away."""
    if not task.cancelled():
        task.exception()
