"""Sending on a call of many requests.

`write` of grpc.aio cannot be used where the service may end the call early, as on a full disk: a
write that is under way then puts INTERNAL, "Internal error from Core", in the place of the
service's own status (grpc/grpc#36066). Hence this goes one layer below.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from google.protobuf.message import Message


async def write(call: Any, message: Message) -> bool:  # noqa: ANN401  # stream-unary and stream-stream share no base with this
    """Send `message` once there is room. Returns False when the call has ended.

    The call's own status says why it has. Raises grpc.aio.AioRpcError if it never began.
    """
    await call.wait_for_connection()
    if call.done():
        return False
    try:
        await call._cython_call.send_serialized_message(message.SerializeToString())
    except grpc.aio.InternalError:
        return False
    return True


async def finish(call: Any) -> None:  # noqa: ANN401  # as above
    """Say that no more is sent; of a call that has ended there is nothing to say."""
    with suppress(grpc.aio.InternalError):
        await call.done_writing()
