"""MCP over stdio, carried to a guest: each line one JSON-RPC message, both ways.

Standard output carries MCP and nothing else. The requests under way are counted, because the end
of standard input must not cost the answers that are still owed.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc

from nexus.gateway.v1 import gateway_pb2
from nexus_rpc.errors import Unavailable
from nexusctl.services import SESSION
from nexusctl.writing import finish, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexusctl.services import Gateway
    from nexusctl.stdio import Input, Output

MAX_LINE = 16 * 1024 * 1024
"""Bytes of the longest message, as the services take it."""

_GOODBYE_SECONDS = 5.0
_TOO_LONG = (
    json.dumps(
        {
            "jsonrpc": "2.0",
            "id": None,
            "error": {"code": -32600, "message": f"a message is at most {MAX_LINE} bytes"},
        }
    ).encode()
    + b"\n"
)

_Call = grpc.aio.StreamStreamCall[gateway_pb2.ConnectMcpRequest, gateway_pb2.ConnectMcpResponse]


class Pending:
    """The requests of the client that are not answered yet."""

    def __init__(self) -> None:
        self._ids: set[tuple[str, Any]] = set()
        self._none = asyncio.Event()
        self._none.set()

    def sent(self, message: bytes) -> None:
        """Take note of a message from the client: a request, or the cancellation of one."""
        for item in _objects(message):
            if "method" in item and "id" in item:
                self._ids.add(_key(item["id"]))
            elif item.get("method") == "notifications/cancelled":
                params = item.get("params")
                self._ids.discard(
                    _key(params.get("requestId") if isinstance(params, dict) else None)
                )
        self._look()

    def received(self, message: bytes) -> None:
        """Take note of a message to the client."""
        for item in _objects(message):
            if "method" not in item and "id" in item:
                self._ids.discard(_key(item["id"]))
        self._look()

    async def none(self) -> None:
        """Return once nothing is owed."""
        await self._none.wait()

    def _look(self) -> None:
        if self._ids:
            self._none.clear()
        else:
            self._none.set()


def _objects(message: bytes) -> list[dict[str, Any]]:
    """Return the JSON-RPC objects of a message; of what is no JSON, none: the server answers it."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return []
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _key(identifier: Any) -> tuple[str, Any]:  # noqa: ANN401  # any JSON value
    # 1 and "1" are two ids, and JSON's lists cannot be members of a set.
    return type(identifier).__name__, json.dumps(identifier)


async def lines(source: Input, limit: int = MAX_LINE) -> AsyncIterator[bytes | None]:
    """Yield the lines of `source` without their ends, empty ones left out.

    A line over `limit` bytes is dropped as it comes, and told as None.
    """
    buffer = bytearray()
    too_long = False
    async for chunk in source.chunks():
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            buffer += piece
            if too_long or len(buffer) > limit:
                yield None
            elif line := bytes(buffer).strip():
                yield line
            buffer.clear()
            too_long = False
        buffer += rest
        if len(buffer) > limit:
            buffer.clear()
            too_long = True
    if too_long:
        yield None
    elif line := bytes(buffer).strip():
        yield line


async def bridge(gateway: Gateway, vm: str, source: Input, sink: Output) -> None:
    """Carry one MCP session until `source` ends and every request is answered.

    Raises NexusError when the service refuses, ends or loses the session.
    """
    call = gateway.stub.ConnectMcp(timeout=SESSION, metadata=gateway.metadata)
    pending = Pending()
    reader = asyncio.create_task(_to_client(call, sink, pending))
    writer = asyncio.create_task(_to_guest(call, vm, source, sink, pending))
    try:
        await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
        if writer.done() and await writer:
            await finish(call)
            await asyncio.wait([reader], timeout=_GOODBYE_SECONDS)
            if reader.done():
                await reader  # a session that was refused is no success
            return
        await reader
        raise Unavailable("CONNECTION_LOST", "gateway ended the MCP session", service=gateway.name)
    except grpc.aio.AioRpcError as error:
        raise await gateway.error(error, f"within {SESSION:g} s") from error
    finally:
        call.cancel()
        for task in (reader, writer):
            task.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)


async def _to_client(call: _Call, sink: Output, pending: Pending) -> None:
    async for answer in call:
        # In JSON a raw line break can only stand between tokens, where a space does as well.
        message = answer.message.replace(b"\r", b" ").replace(b"\n", b" ")
        if message.strip():
            await sink.write(message + b"\n")
            pending.received(message)


async def _to_guest(call: _Call, vm: str, source: Input, sink: Output, pending: Pending) -> bool:
    """Send what comes until all of it is answered. Returns False when the call ended before that.

    Why it ended is the reader's to hear.
    """
    if not await write(call, gateway_pb2.ConnectMcpRequest(vm=vm)):
        return False
    async for line in lines(source):
        if line is None:
            await sink.write(_TOO_LONG)
            continue
        pending.sent(line)
        if not await write(call, gateway_pb2.ConnectMcpRequest(message=line)):
            return False
    await pending.none()
    return True
