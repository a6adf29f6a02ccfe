"""The status that a call of many requests ended with.

Of grpc.aio one cannot simply ask for it: when the service ends a call while a write is under way,
the failed write overwrites the status with INTERNAL, "Internal error from Core" (grpc/grpc#36066).
The callbacks of the call see every status, so the service's own is kept here.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

_OVERWRITTEN = "Internal error from Core"
_LATE_SECONDS = 2.0


class Ending:
    """How `call` ends, once it does."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self._told: asyncio.Future[grpc.aio.AioRpcError] = asyncio.Future()
        call.add_done_callback(self._take)

    def _take(self, call: grpc.aio.Call) -> None:
        error = grpc.aio.AioRpcError(
            _at_hand(call.code()),
            grpc.aio.Metadata(),
            _at_hand(call.trailing_metadata()),
            _at_hand(call.details()),
        )
        if not self._told.done() and error.details() != _OVERWRITTEN:
            self._told.set_result(error)

    async def instead_of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the service's status for a call that raised `error`, or else `error`."""
        if error.details() == _OVERWRITTEN:
            await asyncio.wait([self._told], timeout=_LATE_SECONDS)
        if self._told.done() and self._told.result().code() is not grpc.StatusCode.OK:
            return self._told.result()
        return error


def _at_hand(coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401  # what a call's accessors give
    """Return what `coroutine` gives without waiting: a call that has ended knows all of it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise asyncio.InvalidStateError
