"""Firecracker's API: JSON over HTTP/1.1 on a unix socket.

Just what that server speaks: answers have a Content-Length or no body. Firecracker runs hostile
guests, so what it says is bounded and checked like anything from outside.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from socket import SO_PEERCRED, SOL_SOCKET
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAX_LINE = 4096
_MAX_HEADERS = 32
_MAX_BODY = 64 * 1024
_MAX_SAID = 512
_FIRST_RETRY = 0.002
_LONGEST_RETRY = 0.02
_CREDENTIALS = Struct("3i")  # struct ucred: process, user, group


class Fault(Exception):
    """Firecracker refused a request to `path`; the text is its `fault_message`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class ApiError(Exception):
    """The other end is no Firecracker that works: it hung up, or its answer is none."""


def printable(said: object) -> str:
    """Return what Firecracker said as one short line that people, SQLite and protobuf can take."""
    return "".join(char if char.isprintable() else " " for char in str(said)[:_MAX_SAID])


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
        (answer,) = await self._exchange([(path, None)])
        return answer

    async def put_all(self, resources: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Set resources, in order, at the cost of one round trip. Raises Fault, ApiError.

        All are sent before the first answer comes, so those after a refused one are set too.
        """
        await self._exchange(resources)

    async def patch(self, path: str, change: dict[str, Any]) -> None:
        """Change the resource at `path`. Raises Fault, ApiError."""
        await self._exchange([(path, change)], "PATCH")

    async def act(self, action: str) -> None:
        """Do `action`, such as InstanceStart. Raises Fault, ApiError."""
        await self._exchange([("/actions", {"action_type": action})])

    async def _exchange(
        self, requests: Sequence[tuple[str, dict[str, Any] | None]], method: str = "PUT"
    ) -> list[dict[str, Any]]:
        """Send a GET for each None and a `method` for each resource, and return the answers."""
        try:
            self._writer.write(
                b"".join(_request(method, path, resource) for path, resource in requests)
            )
            await self._writer.drain()
            return [await self._answer_for(path) for path, _ in requests]
        except (OSError, EOFError, ValueError) as error:
            raise ApiError(f"{requests[0][0]}: {error or 'the connection was closed'}") from error

    async def _answer_for(self, path: str) -> dict[str, Any]:
        status, answer = await self._answer()
        if status >= HTTPStatus.BAD_REQUEST:
            raise Fault(path, printable(answer.get("fault_message", f"status {status}")))
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
        try:
            answer = json.loads(await self._reader.readexactly(length) or b"{}")
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None
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


def _request(method: str, path: str, resource: dict[str, Any] | None) -> bytes:
    head = f"{'GET' if resource is None else method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    body = b""
    if resource is not None:
        body = json.dumps(resource).encode()
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Accept: application/json\r\n\r\n".encode() + body


async def dial(path: Path, uid: int) -> Api:
    """Return the API at `path`, where the user `uid` listens.

    Raises OSError when nothing listens there, and when somebody else does: a process that broke
    out of Firecracker can put a link to another socket in place of its own.
    """
    reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_LINE)
    # Who called listen(2), as the kernel knows it (SO_PEERCRED, unix(7)).
    found = writer.get_extra_info("socket").getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
    if _CREDENTIALS.unpack(found)[1] != uid:
        writer.close()
        raise PermissionError(f"{path} leads to another's socket")
    return Api(reader, writer)


async def dial_new(path: Path, uid: int) -> Api:
    """Return the API at `path` once it is there, as `dial` does; the caller bounds the wait.

    The socket's file appears (bind) before it takes connections (listen), and no event tells the
    second, so this tries: after 2 ms, and then up to 20 ms apart.
    """
    pause = _FIRST_RETRY
    while True:
        try:
            return await dial(path, uid)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RETRY)
