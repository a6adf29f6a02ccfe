"""Standard input and output as bytes, without ever blocking the loop.

Neither is put into non-blocking mode: that flag belongs to the open file, which the parent shell
shares. Instead each read and write waits for readiness first. Regular files are always "ready"
and cannot be polled (epoll answers EPERM), so they are read and written in a thread.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

STDIN = 0
STDOUT = 1
STDERR = 2

_READ = 64 * 1024
_PIPE_BUF = 4096  # a pipe that polls writable takes so many bytes without blocking (pipe(7))


class Input:
    """Bytes from a file descriptor."""

    def __init__(self, descriptor: int = STDIN) -> None:
        self._descriptor = descriptor

    def is_piped(self) -> bool:
        """Whether there is something to read that is not a terminal."""
        try:
            return not os.isatty(self._descriptor) and bool(os.fstat(self._descriptor))
        except OSError:  # closed by whoever started this program
            return False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what comes, at most 64 KiB at a time, until the end of the file."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await _ready(loop.add_reader, loop.remove_reader, self._descriptor)
            except PermissionError:
                chunk = await asyncio.to_thread(os.read, self._descriptor, _READ)
            else:
                try:
                    chunk = os.read(self._descriptor, _READ)
                except BlockingIOError:  # another reader of the same pipe was faster
                    continue
            if not chunk:
                return
            yield chunk


class Output:
    """Bytes to a file descriptor. Writers take turns, each write is whole."""

    def __init__(self, descriptor: int = STDOUT) -> None:
        self._descriptor = descriptor
        self._turn = asyncio.Lock()
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, data: bytes) -> None:
        """Write all of `data`. Raises OSError, BrokenPipeError when nobody reads any more."""
        async with self._turn:
            view = memoryview(data)
            while view:
                if self._is_file:
                    view = view[await asyncio.to_thread(os.write, self._descriptor, view) :]
                    continue
                if not self._poll.poll(0):
                    loop = asyncio.get_running_loop()
                    await _ready(loop.add_writer, loop.remove_writer, self._descriptor)
                try:
                    view = view[os.write(self._descriptor, view[:_PIPE_BUF]) :]
                except BlockingIOError:  # the parent had made it non-blocking
                    await asyncio.sleep(0)


async def _ready(add: Callable[..., None], remove: Callable[[int], bool], descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    add(descriptor, ready)
    try:
        await future
    finally:
        remove(descriptor)
