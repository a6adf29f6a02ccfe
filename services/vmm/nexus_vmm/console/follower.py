"""Following a VM's console as it prints, for one caller who may be slow.

The log is looked at while it is followed, and only then: soon after something was printed or typed,
and rarely while all is quiet. (The libraries for inotify all start a process to find libc.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from nexus_rpc.errors import Unavailable
from nexus_vmm.console.reader import tail

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from nexus_vmm.console.reader import Reader

CHUNK = 64 * 1024
"""Bytes of a message."""
BACKLOG = 256 * 1024
"""Bytes that are held for a caller who does not take them yet."""

_SOON = 0.02
_RARELY = 0.25
_SLOWER = 1.5
"""Seconds between two looks: the first, the longest, and how it grows from one to the other."""


def cut(data: bytes) -> Iterator[bytes]:
    """Yield `data` in pieces of at most `CHUNK` bytes."""
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


class Chunk(NamedTuple):
    """What was printed, at most `CHUNK` bytes, and how many bytes before it were left out."""

    data: bytes
    dropped: int


class Backlog:
    """What a caller has not taken yet; of more than `BACKLOG` bytes the oldest are dropped."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self._size = 0
        self._lost = 0
        self._news = asyncio.Event()
        self._ended = False

    def put(self, data: bytes, lost: int) -> None:
        """Add what was printed, after `lost` bytes that could not be read."""
        self._lost += lost
        self._size += len(data)
        if self._chunks and not self._lost and len(self._chunks[-1].data) + len(data) <= CHUNK:
            last = self._chunks.pop()
            self._chunks.append(Chunk(last.data + data, last.dropped))
        else:
            for piece in cut(data):
                self._chunks.append(Chunk(piece, self._lost))
                self._lost = 0
        while self._size > BACKLOG:
            first, second = self._chunks.popleft(), self._chunks.popleft()
            self._size -= len(first.data)
            dropped = first.dropped + len(first.data) + second.dropped
            self._chunks.appendleft(Chunk(second.data, dropped))
        self._news.set()

    def end(self) -> None:
        """Let the caller know that nothing comes any more."""
        self._ended = True
        self._news.set()

    async def take(self) -> Chunk | None:
        """Return the next chunk once there is one, or None at the end."""
        while not self._chunks:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk.data)
        return chunk


class Follower:
    """One caller's place in one log."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._stirred = asyncio.Event()
        self._stopping = False
        self._backlog = Backlog()

    def stir(self) -> None:
        """Look at once: something was typed."""
        self._stirred.set()

    def stop(self) -> None:
        """End: the service stops."""
        self._stopping = True
        self._stirred.set()

    async def chunks(self, tail_bytes: int = 0, tail_lines: int = 0) -> AsyncGenerator[Chunk, None]:
        """Yield the end of the log (see `tail`), then what is printed until the log is removed.

        Raises Unavailable (STOPPING) and OSError.
        """
        try:
            printed = await asyncio.to_thread(self._reader.more)
        except FileNotFoundError:
            return
        looking = asyncio.create_task(self._look())
        try:
            for piece in cut(tail(printed.data, tail_bytes, tail_lines)):
                yield Chunk(piece, 0)
            while (chunk := await self._backlog.take()) is not None:
                yield chunk
            await looking
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        pause = _SOON
        try:
            while not self._stopping:
                printed = await asyncio.to_thread(self._reader.more)
                if printed.data or printed.lost:
                    self._backlog.put(*printed)
                    pause = _SOON
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stirred.wait()
                pause = _SOON if self._stirred.is_set() else min(pause * _SLOWER, _RARELY)
                self._stirred.clear()
        except FileNotFoundError:
            return
        finally:
            self._backlog.end()
        raise Unavailable("STOPPING", "vmm is stopping; follow again once it is back")
