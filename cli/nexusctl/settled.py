"""Work that an interruption must not cut in two."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from nexusctl.terminal import note

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")

_QUIET_SECONDS = 1.0


async def settled(work: Coroutine[Any, Any, _T]) -> _T:
    """Await `work` to its end, through an interruption too, which is raised afterwards.

    A step that was cut off may still be carried out; undoing it is safe only once it has ended.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        done, _ = await asyncio.wait([task], timeout=_QUIET_SECONDS)
        if not done:
            note("interrupted: waiting for the step under way to end; again to stop at once")
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the interruption is what is told
        raise
