"""Firecracker's API: JSON over HTTP/1.1 on a unix socket, one request at a time.

Just what that server speaks: answers have a Content-Length or no body. Firecracker runs hostile
guests, so what it says is bounded and checked like anything from outside.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_MAX_LINE = 4096
_MAX_HEADERS = 32
_MAX_BODY = 64 * 1024
_FIRST_RETRY = 0.002
_LONGEST_RETRY = 0.02


class Fault(Exception):
    """Firecracker refused a request; the text is its `fault_message`."""


class ApiError(Exception):
    """The other end is no Firecracker that works: it hung up, or its answer is none."""


class Api:
    """One connection to the API. Use `dial`, and close it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def get(self, path: str) -> dict[str, Any]:
        """Return the resource at `path`. Raises Fault, ApiError."""
        return await self._request("GET", path, b"")

    async def put(self, path: str, resource: dict[str, Any]) -> None:
        """Set the resource at `path`. Raises Fault, ApiError."""
        await self._request("PUT", path, json.dumps(resource).encode())

    async def act(self, action: str) -> None:
        """Do `action`, such as InstanceStart. Raises Fault, ApiError."""
        await self.put("/actions", {"action_type": action})

    async def _request(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            self._writer.write(f"{head}\r\n".encode() + body)
            await self._writer.drain()
            status, answer = await self._answer()
        except (OSError, EOFError, ValueError) as error:
            raise ApiError(f"{method} {path}: {error or 'the connection was closed'}") from error
        if status >= HTTPStatus.BAD_REQUEST:
            raise Fault(str(answer.get("fault_message", f"status {status}")))
        return answer

    async def _answer(self) -> tuple[int, dict[str, Any]]:
        version, _, rest = (await self._line()).partition(" ")
        if not version.startswith("HTTP/1."):
            raise ValueError(f"not HTTP: {version!r}")
        status = int(rest[:3])
        length = 0
        for _ in range(_MAX_HEADERS):
            line = await self._line()
            if not line:
                break
            key, _, value = line.partition(":")
            if key.lower() == "content-length":
                length = int(value)
        else:
            raise ValueError("too many headers")
        if not 0 <= length <= _MAX_BODY:
            raise ValueError(f"a body of {length} bytes")
        answer = json.loads(await self._reader.readexactly(length) or b"{}")
        if not isinstance(answer, dict):
            raise ValueError("the body is no object")  # noqa: TRY004  # of the peer, not a caller
        return status, answer

    async def _line(self) -> str:
        # LimitOverrunError is no OSError; as with a body, too much is the peer's fault.
        try:
            line = await self._reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError as error:
            raise ValueError("a line without end") from error
        return line[:-2].decode("ascii")


async def dial(path: Path) -> Api:
    """Return the API at `path`. Raises OSError when nothing listens there."""
    return Api(*await asyncio.open_unix_connection(path, limit=_MAX_LINE))


async def dial_new(path: Path) -> Api:
    """Return the API at `path` once it is there; the caller bounds the wait.

    The socket's file appears (bind) before it takes connections (listen), and no event tells the
    second, so this tries: after 2 ms, and then up to 20 ms apart.
    """
    pause = _FIRST_RETRY
    while True:
        try:
            return await dial(path)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RETRY)
