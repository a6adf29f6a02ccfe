"""One MCP session over a stream of messages, as ConnectMcp carries it.

The official SDK serves it over in-memory streams; here messages are parsed and bounded, and what
is no message is answered, where the SDK would drop it in silence.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from nexus_gateway import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.server.lowlevel import Server

MAX_MESSAGE = 16 << 20
"""Bytes of the longest JSON-RPC message: a file of 5 MB in base64, three times over."""
_MAX_IN_FLIGHT = 32
_CANCELLED = "notifications/cancelled"


class McpStream:
    """Serves one client until its messages end."""

    def __init__(self, server: Server[Any], send: Callable[[bytes], Awaitable[None]]) -> None:
        self._server = server
        self._send = send
        # Two tasks answer: the server, and the reader for what is no message.
        self._sending = asyncio.Lock()
        self._in_flight: set[RequestId] = set()

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Serve `messages`, one JSON-RPC message each; calls under way end with the last one."""
        inward, received = anyio.create_memory_object_stream[SessionMessage | Exception]()
        outward, answers = anyio.create_memory_object_stream[SessionMessage]()
        metrics.mcp_sessions.add(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                options = self._server.create_initialization_options()
                tasks.create_task(self._server.run(received, outward, options))
                tasks.create_task(self._write(answers))
                await self._read(messages, inward)
        finally:
            metrics.mcp_sessions.add(-1)
            for stream in (inward, received, outward, answers):
                stream.close()

    async def _read(
        self,
        messages: AsyncIterator[bytes],
        inward: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        async with inward:
            async for raw in messages:
                try:
                    message = self._admit(_parse(raw))
                except _Refused as refused:
                    await self._answer(refused.answer)
                else:
                    await inward.send(SessionMessage(message))

    def _admit(self, message: JSONRPCMessage) -> JSONRPCMessage:
        """Count requests under way: each holds a task and its message."""
        if isinstance(message, JSONRPCRequest):
            if len(self._in_flight) >= _MAX_IN_FLIGHT:
                text = f"{_MAX_IN_FLIGHT} requests are under way: wait for one to end"
                raise _Refused(message.id, INVALID_REQUEST, text)
            self._in_flight.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == _CANCELLED:
            # A cancelled request is never answered.
            request_id = (message.params or {}).get("requestId")
            if isinstance(request_id, int | str):
                self._in_flight.discard(request_id)
        return message

    async def _write(self, answers: MemoryObjectReceiveStream[SessionMessage]) -> None:
        async for answer in answers:
            message = answer.message
            if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
                self._in_flight.discard(message.id)
            await self._answer(message)

    async def _answer(self, message: JSONRPCMessage) -> None:
        raw = message.model_dump_json(by_alias=True, exclude_unset=True).encode()
        if len(raw) > MAX_MESSAGE and isinstance(message, JSONRPCResponse):
            text = f"the result has {len(raw)} bytes, at most {MAX_MESSAGE}: ask for less"
            return await self._answer(_Refused(message.id, INTERNAL_ERROR, text).answer)
        async with self._sending:
            await self._send(raw)
        return None


class _Refused(Exception):  # it is an answer
    """A message that the SDK never sees, and the answer to it."""

    def __init__(self, request_id: RequestId | None, code: int, message: str) -> None:
        super().__init__(message)
        error = ErrorData(code=code, message=message)
        self.answer = JSONRPCError(jsonrpc="2.0", id=request_id, error=error)


def _parse(raw: bytes) -> JSONRPCMessage:
    if len(raw) > MAX_MESSAGE:
        text = f"a message of {len(raw)} bytes, at most {MAX_MESSAGE}"
        raise _Refused(None, INVALID_REQUEST, text)
    try:
        return jsonrpc_message_adapter.validate_json(raw, by_name=False)
    except ValidationError as error:
        kind = error.errors(include_url=False, include_input=False)[0]["type"]
        if kind == "json_invalid":
            raise _Refused(None, PARSE_ERROR, "the message is not JSON") from None
        raise _Refused(None, INVALID_REQUEST, "the message is not JSON-RPC 2.0") from None
