"""How the things that vmm depends on are: its subsystems.

They are looked at when somebody asks, at most every 5 s, all at once. One that does not answer in
time is not asked again before it has, so that a disk that hangs holds one thread and no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Check = Callable[[], Awaitable[str]]
    """Returns a figure worth knowing; raises Unwell, NexusError or OSError."""

FRESH = 5.0
"""Seconds for which nothing is looked at again, whoever asks."""
SECONDS = 3.0
"""What each subsystem gets to answer in."""

_log = logging.getLogger(__name__)


class Unwell(Exception):
    """A subsystem does not work. The message says what is wrong, and the way out."""


@dataclass(frozen=True)
class Subsystem:
    """How one subsystem is; `detail` is what is wrong and what to do, or a figure."""

    name: str
    ok: bool
    detail: str


class Health:
    """Looks at the subsystems, each by its check."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._lock = asyncio.Lock()
        self._asked: dict[str, asyncio.Future[str]] = {}
        self._at = float("-inf")
        self.latest: Sequence[Subsystem] = ()

    async def now(self) -> Sequence[Subsystem]:
        """Return how each subsystem is, or was in the last 5 s."""
        async with self._lock:
            if time.monotonic() - self._at >= FRESH:
                seen = await asyncio.gather(*map(self._look, self._checks))
                self._tell(seen)
                self.latest, self._at = seen, time.monotonic()
            return self.latest

    def works(self, name: str) -> bool:
        """Whether the subsystem worked when it was last looked at."""
        return any(one.name == name and one.ok for one in self.latest)

    def close(self) -> None:
        """Wait for no answer any more."""
        for asked in self._asked.values():
            asked.cancel()

    async def _look(self, name: str) -> Subsystem:
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = asyncio.ensure_future(self._checks[name]())
        await asyncio.wait({asked}, timeout=SECONDS)
        if not asked.done():
            return Subsystem(name, ok=False, detail=f"no answer for {SECONDS:g} s")
        del self._asked[name]
        try:
            return Subsystem(name, ok=True, detail=asked.result())
        except NexusError as error:
            return Subsystem(name, ok=False, detail=error.message)
        except (Unwell, OSError) as error:
            return Subsystem(name, ok=False, detail=str(error))
        except Exception as error:  # noqa: BLE001  # to look at health must not end what is healthy
            _log.exception("%s cannot be looked at", name)
            return Subsystem(name, ok=False, detail=f"defect of vmm: {error!r}")

    def _tell(self, seen: Sequence[Subsystem]) -> None:
        before = {one.name: one.ok for one in self.latest}
        for one in seen:
            if not one.ok and before.get(one.name, True):
                _log.warning("%s: %s", one.name, one.detail)
            elif one.ok and not before.get(one.name, True):
                _log.info("%s: well again: %s", one.name, one.detail)
