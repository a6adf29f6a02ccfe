"""What netlink sockets tell without being asked, read on the event loop, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_T = TypeVar("_T")

_SO_RCVBUFFORCE = 33
_RECEIVE = 1 << 16
_PIECE = 8
"""Datagrams that are read before others have their turn on the loop."""


class Stream(Generic[_T]):
    """An iterator over what sockets tell. With `lost`, alike values that wait are one.

    No more than `most` values wait: then they are replaced by `lost`, or, without it, what comes is
    left out. The same where the kernel had to drop messages. A full piece is followed by a rest of
    `rest` seconds, so that those who make the kernel tell do not take the loop for themselves.
    """

    def __init__(self, most: int, *, lost: _T | None = None, rest: float = 0.0) -> None:
        self._most = most
        self._lost = lost
        self._rest = rest
        self._waiting: dict[_T, int] = {}  # how often each was told
        self._wake = asyncio.Event()
        self._readers: list[tuple[socket.socket, Callable[[bytes], Iterable[_T]]]] = []
        self._closed = False

    def listen(self, to: socket.socket, read: Callable[[bytes], Iterable[_T]]) -> None:
        """Read datagrams from a socket that is the stream's from now on."""
        to.setblocking(False)
        self._readers.append((to, read))
        self._resume(to, read)

    def close(self) -> None:
        """Close the sockets; who waits for the next value is told that there is none."""
        self._closed = True
        for one, _ in self._readers:
            asyncio.get_running_loop().remove_reader(one.fileno())
            one.close()
        self._readers.clear()
        self._wake.set()

    def __aiter__(self) -> Stream[_T]:
        return self

    async def __anext__(self) -> _T:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        value, times = next(iter(self._waiting.items()))
        if times > 1 and self._lost is None:
            self._waiting[value] = times - 1
        else:
            del self._waiting[value]
        return value

    def _resume(self, to: socket.socket, read: Callable[[bytes], Iterable[_T]]) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(to.fileno(), self._hear, to, read)

    def _hear(self, to: socket.socket, read: Callable[[bytes], Iterable[_T]]) -> None:
        for _ in range(_PIECE):
            try:
                data = to.recv(_RECEIVE)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # nothing more for now
                    return
                self._overflow()
            else:
                self._take(read(data))
        if self._rest:
            loop = asyncio.get_running_loop()
            loop.remove_reader(to.fileno())
            loop.call_later(self._rest, self._resume, to, read)

    def _take(self, values: Iterable[_T]) -> None:
        for value in values:
            if len(self._waiting) < self._most or value in self._waiting:
                self._waiting[value] = self._waiting.get(value, 0) + 1
            else:
                self._overflow()
                break
        if self._waiting:
            self._wake.set()

    def _overflow(self) -> None:
        if self._lost is not None:
            self._waiting = {self._lost: 1}
            self._wake.set()


def enlarge(buffer_of: socket.socket, size: int) -> None:
    """Let a socket keep `size` bytes of what has not been read; with CAP_NET_ADMIN only."""
    with contextlib.suppress(PermissionError):
        buffer_of.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
