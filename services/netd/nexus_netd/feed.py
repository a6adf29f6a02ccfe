"""Telling watchers what happens: who tells never waits, and who is slow learns what it lost."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from nexus_rpc.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

BEHIND = 1_000
"""What a watcher may have ahead of it; what comes beyond is only counted."""
MOST = 256
"""Watchers of one kind of thing: telling costs time for each."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Missed:
    """So many were lost here, by a watcher that was too slow."""

    count: int


class Watcher(Generic[_T]):
    """An async iterator over what one watcher is told, with `Missed` where something was lost."""

    def __init__(self, wanted: Callable[[_T], bool], behind: int) -> None:
        self._wanted = wanted
        self._behind = behind
        self._ahead: deque[_T | Missed] = deque()
        self._missed = 0
        self._closed = False
        self._awake = asyncio.Event()

    def put(self, item: _T) -> None:
        """Let the watcher have the item, unless it is too far behind."""
        if not self._wanted(item):
            return
        if len(self._ahead) >= self._behind:
            self._missed += 1
        else:
            self._flush_missed()
            self._ahead.append(item)
        self._awake.set()

    def close(self) -> None:
        """End the iteration once what is ahead was taken."""
        self._closed = True
        self._awake.set()

    def __aiter__(self) -> Watcher[_T]:
        return self

    async def __anext__(self) -> _T | Missed:
        while not self._ahead:
            self._flush_missed()
            if self._ahead:
                break
            if self._closed:
                raise StopAsyncIteration
            self._awake.clear()
            await self._awake.wait()
        return self._ahead.popleft()

    def _flush_missed(self) -> None:
        if self._missed:
            self._ahead.append(Missed(self._missed))
            self._missed = 0


class Channel(Generic[_T]):
    """Watchers of one kind of thing."""

    def __init__(self, behind: int = BEHIND) -> None:
        self._behind = behind
        self._watchers: set[Watcher[_T]] = set()
        self._closed = False

    def tell(self, item: _T) -> None:
        """Let all watchers have the item; returns at once."""
        for watcher in self._watchers:
            watcher.put(item)

    @contextmanager
    def watch(self, wanted: Callable[[_T], bool]) -> Iterator[Watcher[_T]]:
        """Watch what is `wanted` from now to the end of the block. Raises ResourceExhausted."""
        if len(self._watchers) >= MOST:
            raise ResourceExhausted(
                "TOO_MANY_WATCHERS", f"{MOST} are watching already; end one of them", most=str(MOST)
            )
        watcher = Watcher(wanted, self._behind)
        if self._closed:
            watcher.close()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all watching, of now and later: the service stops."""
        self._closed = True
        for watcher in self._watchers:
            watcher.close()


@dataclass(frozen=True)
class Happening:
    """Something happened to a port or a network, at `time` in Unix seconds.

    `what` is "attached", "detached", "changed" or "repaired". `vm_id` is empty for a network.
    """

    time: float
    what: str
    vm_id: str
    network: str
    details: str


class Feed:
    """What happens to networks and ports."""

    def __init__(self, behind: int = BEHIND, now: Callable[[], float] = time.time) -> None:
        self._channel = Channel[Happening](behind)
        self._now = now

    def tell(self, what: str, vm_id: str, network: str, details: str) -> None:
        """Tell it to all who watch; returns at once."""
        self._channel.tell(Happening(self._now(), what, vm_id, network, details))

    def watch(self, vm_id: str = "") -> AbstractContextManager[Watcher[Happening]]:
        """Watch what concerns the VM, or everything, from now to the end of the block."""
        return self._channel.watch(lambda happening: vm_id in {"", happening.vm_id})

    def close(self) -> None:
        """End all watching: the service stops."""
        self._channel.close()
