"""Who drives the resolver: the stream that makes pins and takes denials."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_dns import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

PIN_SECONDS = 2.0
"""How long a guest's answer waits for its pin."""

_MOST_WAITING = 2000
"""Pins and denials that wait to be taken by a driver that is slow."""

_MOST_DENIALS = 1000
"""With so many waiting, denials are lost, and counted: pins come first."""


@dataclass(frozen=True)
class Pin:
    """Addresses that a guest is about to be given for `domain`, for `ttl` seconds."""

    vm_id: str
    domain: str
    addresses: tuple[str, ...]
    ttl: int
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Denial:
    """A name that a guest was refused, or whose addresses it was not given."""

    vm_id: str
    domain: str
    rule: str


class Session:
    """One stream that drives, from its beginning to its end."""

    def __init__(self) -> None:
        self.synced = False
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._outgoing: asyncio.Queue[tuple[int, Pin] | Denial] = asyncio.Queue()
        self._over = asyncio.Event()

    async def over(self) -> None:
        """Return when another stream has taken the place of this one, or the service stops."""
        await self._over.wait()

    async def next(self) -> tuple[int, Pin] | Denial:
        """Return what is to be told next: a pin with its number, or a denial."""
        while True:
            said = await self._outgoing.get()
            if isinstance(said, Denial) or said[0] in self._waiting:
                return said

    def settle(self, number: int, *, pinned: bool) -> None:
        """Take the answer to a pin. One that nobody waits for any more is ignored."""
        waiting = self._waiting.get(number)
        if waiting and not waiting.done():
            waiting.set_result(pinned)

    async def pin(self, pin: Pin) -> bool:
        """Have a pin made. False: it was not, or not in time, or too many wait."""
        if self._outgoing.qsize() >= _MOST_WAITING:
            return False
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._outgoing.put_nowait((number, pin))
        try:
            async with asyncio.timeout(PIN_SECONDS):
                return await self._waiting[number]
        except TimeoutError:
            return False
        finally:
            del self._waiting[number]

    def deny(self, denial: Denial) -> bool:
        """Tell of a denial. False: too many wait."""
        if self._outgoing.qsize() >= _MOST_DENIALS:
            return False
        self._outgoing.put_nowait(denial)
        return True

    def end(self) -> None:
        """Fail what waits, and have the stream ended."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(False)
        self._over.set()


class Driver:
    """The one place that drives; a new stream takes it from the one before."""

    def __init__(self) -> None:
        self._session: Session | None = None

    @contextmanager
    def driven_by(self, session: Session) -> Iterator[None]:
        """Let `session` drive while the block runs, or until another takes the place."""
        self.vacate()
        self._session = session
        try:
            yield
        finally:
            session.end()
            if self._session is session:
                self._session = None

    def vacate(self) -> None:
        """End the stream that drives, if any."""
        if self._session:
            self._session.end()
            self._session = None

    def is_driven_by(self, session: Session) -> bool:
        """Tell whether `session` has the place."""
        return self._session is session

    async def pin(self, pin: Pin) -> bool:
        """Have a pin made. False: it was not, or not in time, or nobody drives who knows all."""
        if self._session is None or not self._session.synced:
            return False
        began = time.monotonic()
        try:
            return await self._session.pin(pin)
        finally:
            metrics.pin_seconds.record(time.monotonic() - began)

    def deny(self, denial: Denial) -> None:
        """Tell of a denial, as far as somebody listens."""
        if self._session is None or not self._session.deny(denial):
            metrics.denials_lost.add(1)
