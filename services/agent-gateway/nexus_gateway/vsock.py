"""Connections to a guest through Firecracker's vsock socket.

Firecracker answers `CONNECT PORT` with `OK N` once the guest's kernel has accepted, which proves
nothing of the program behind it (Firecracker docs/vsock.md). All that follows is the guest's, and
guests are hostile: every wait has a deadline and every buffer a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from socket import SO_PEERCRED, SOL_SOCKET
from struct import Struct
from typing import TYPE_CHECKING, Protocol

from nexus_guest.wire import Decoder, Frame, Kind, WireError, encode, encode_message
from nexus_rpc.errors import DataLoss, InvalidArgument, Unavailable
from nexus_rpc.ids import is_vm_uid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

_READ_SIZE = 64 << 10
_OK_LIMIT = 32
"""Longest `OK N` line, in bytes; N has at most 10 digits."""
_CREDENTIALS = Struct("3i")  # struct ucred: process, user, group


class Dial(Protocol):
    """How a connection to a port of a guest comes to be."""

    async def __call__(self, path: str, port: int, *, timeout: float) -> Connection:
        """Return a connection. Unavailable (GUEST_UNREACHABLE) if there is none in `timeout` s."""


class Connection:
    """A framed connection to a guest; closed when left as a context, at once and for good.

    Holds at most one unfinished frame and what one read of 64 KiB brought; a sender who is
    faster than the guest waits.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._frames: deque[Frame] = deque()

    async def request(self, message: Mapping[str, object], *, timeout: float) -> None:
        """Send a REQUEST. InvalidArgument if it does not fit a frame."""
        if self._frames:
            raise DataLoss("GUEST_PROTOCOL", "the guest answered before it was asked")
        try:
            frame = encode_message(Kind.REQUEST, message)
        except ValueError as error:
            raise InvalidArgument("INVALID_FIELD", f"the request is too long: {error}") from None
        await self._write(frame, timeout)

    async def send(self, kind: Kind, payload: bytes | memoryview = b"", *, timeout: float) -> None:
        """Send a frame of bytes. Unavailable if the guest takes nothing for `timeout` seconds."""
        await self._write(encode(kind, payload), timeout)

    async def _write(self, frame: bytes, timeout: float) -> None:
        self._writer.write(frame)
        try:
            async with asyncio.timeout(timeout):
                await self._writer.drain()
        except TimeoutError:
            raise _unreachable(f"the guest took no data for {timeout:g} s") from None
        except OSError as error:
            raise _unreachable(f"the guest's connection broke: {error}") from None

    async def receive(self, *, timeout: float | None) -> Frame:
        """Return the next frame; `timeout` seconds may pass until it is complete, None: any number.

        Unavailable (GUEST_UNREACHABLE) if the connection ended or nothing came;
        DataLoss (GUEST_PROTOCOL) if what came is no frame.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self._frames:
                    await self._fill()
        except TimeoutError:
            raise _unreachable(f"the guest did not answer for {timeout:g} s") from None
        return self._frames.popleft()

    async def _fill(self) -> None:
        try:
            data = await self._reader.read(_READ_SIZE)
        except OSError as error:
            raise _unreachable(f"the guest's connection broke: {error}") from None
        if not data:
            raise _unreachable("the guest closed the connection")
        try:
            self._frames.extend(self._decoder.feed(data))
        except WireError as error:
            await self.close()
            raise DataLoss("GUEST_PROTOCOL", f"the guest broke the protocol: {error}") from None

    async def close(self) -> None:
        """Close both directions; what was not sent yet is dropped. Idempotent."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def dial(path: str, port: int, *, timeout: float) -> Connection:
    """Connect to `port` of the guest behind Firecracker's socket at `path`; see `Dial`."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path, limit=_READ_SIZE)
            connection = Connection(reader, writer)
            try:
                _check_listener(writer, path)
                writer.write(b"CONNECT %d\n" % port)
                await writer.drain()
                await _expect_ok(reader, port)
            except BaseException:
                await connection.close()
                raise
    except TimeoutError:
        raise _unreachable(f"no connection to port {port} of the guest in {timeout:g} s") from None
    except OSError as error:
        raise _unreachable(f"no connection to port {port} of the guest: {error}") from None
    return connection


def _check_listener(writer: asyncio.StreamWriter, path: str) -> None:
    """Raise PermissionError where another VM listens than the one whose directory it is.

    A process that broke out of Firecracker can put a link to another's socket in place of its own.
    The directory was given to the VM's user by root, in one of root's.
    """
    owner = os.stat(os.path.dirname(path)).st_uid  # noqa: PTH116, PTH120  # in memory, so no wait
    # Who called listen(2), as the kernel knows it (SO_PEERCRED, unix(7)).
    found = writer.get_extra_info("socket").getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size)
    if is_vm_uid(owner) and _CREDENTIALS.unpack(found)[1] != owner:
        raise PermissionError(f"{path} leads to another's socket")


async def _expect_ok(reader: asyncio.StreamReader, port: int) -> None:
    # Byte by byte: what follows the line is already the guest's stream.
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = await reader.read(1)
        if not byte:
            raise _unreachable(f"nothing listens on port {port} of the guest yet")
        line += byte
        if len(line) > _OK_LIMIT:
            break
    if not (line.startswith(b"OK ") and line.endswith(b"\n") and line[3:-1].isdigit()):
        raise _unreachable(f"the vsock socket answered {bytes(line)!r}, expected OK and a number")


def _unreachable(message: str) -> Unavailable:
    return Unavailable("GUEST_UNREACHABLE", message)
