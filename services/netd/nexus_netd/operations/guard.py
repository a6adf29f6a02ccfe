"""The guard: what somebody does to our things in the kernel is put right within a second.

The kernel tells of changes; they are collected for a moment, and what they name is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from nexus_netd.kernel import Changed, KernelError, Matter
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nexus_netd.operations.network_repair import Repaired
    from nexus_netd.operations.repair import Repair
    from nexus_netd.operations.state import State
    from nexus_netd.operations.turn import Turn

COLLECT = 0.1
"""Seconds that changes are collected for: they come in bursts."""

SLOW = 1.0
"""Seconds between looks when a look failed, or somebody keeps undoing what is repaired."""

FIGHT = 5
"""Repairs of one thing within a minute, beyond which somebody is taken to keep undoing them."""

_MINUTE = 60.0

_log = logging.getLogger(__name__)


class Guard:
    """Follows the kernel's changes. One look at a time, each in its turn with other changes."""

    def __init__(
        self,
        state: State,
        repair: Repair,
        turn: Turn,
        *,
        collect: float = COLLECT,
        slow: float = SLOW,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._repair = repair
        self._turn = turn
        self._collect = collect
        self._slow = slow
        self._fights = _Fights(now)
        self._changed: set[Changed] = set()
        self._awake = asyncio.Event()
        self._told = ""
        state.on_suspicion(self.note)

    def note(self, changed: Changed) -> None:
        """Have a look at it soon."""
        self._changed.add(changed)
        self._awake.set()

    async def run(self) -> None:
        """Follow for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look())
            tasks.create_task(self._listen())

    async def _listen(self) -> None:
        told = ""
        while True:
            try:
                async for changed in self._state.kernel.events():
                    self.note(changed)
            except KernelError as error:
                if str(error) != told:
                    _log.error("changes are not heard, tried again: %s", error)
                told = str(error)
            await asyncio.sleep(self._slow)
            self.note(Changed(Matter.EVERYTHING))  # whatever came meanwhile

    async def _look(self) -> None:
        pause = self._collect
        while True:
            await self._awake.wait()
            await asyncio.sleep(pause)
            self._awake.clear()
            changed, self._changed = self._changed, set()
            pause = self._collect
            try:
                done = await self._turn.take(lambda: self._some(changed))  # noqa: B023  # awaited
            except NexusError as error:
                if str(error) != self._told:
                    _log.error("not repaired, tried again: %s", error)  # once, not at each look
                self._told = str(error)
                self._changed |= changed
                self._awake.set()
                pause = self._slow
                continue
            self._told = ""
            if self._fights.goes_on(done):
                pause = self._slow

    async def _some(self, changed: Collection[Changed]) -> Collection[Repaired]:
        return await self._repair.some(changed) if self._state.wanted else ()


class _Fights:
    """How often each thing was repaired of late; somebody who keeps undoing it is told of once."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._times: dict[str, deque[float]] = {}
        self._fought: set[str] = set()

    def goes_on(self, done: Collection[Repaired]) -> bool:
        """Take in what was repaired; return whether anything was repaired too often."""
        now = self._now()
        for thing in [name for name, times in self._times.items() if times[-1] < now - _MINUTE]:
            del self._times[thing]
            self._fought.discard(thing)
        fought = False
        for one in done:
            times = self._times.setdefault(one.thing, deque(maxlen=FIGHT + 1))
            times.append(now)
            if len(times) > FIGHT and times[0] > now - _MINUTE:
                fought = True
                if one.thing not in self._fought:
                    self._fought.add(one.thing)
                    _log.error(
                        "somebody keeps undoing %s: it is repaired once a second from now on",
                        one.thing,
                    )
        return fought
