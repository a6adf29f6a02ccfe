"""Steps that several operations are made of. Whoever takes one holds the VM's lock."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_rpc.errors import DeadlineExceeded, NexusError
from nexus_vmm import clock, metrics
from nexus_vmm.operations.ladder import RUNGS, Rung, descend
from nexus_vmm.restarts import nears_loop
from nexus_vmm.states import LIVE, Event
from nexus_vmm.vm import Exit, Goal

if TYPE_CHECKING:
    from nexus_vmm.calls import Request
    from nexus_vmm.driver import Driver
    from nexus_vmm.records.store import Store
    from nexus_vmm.vm import Boot, Vm

START_SECONDS = 60.0
"""What a start may take if the caller sets no deadline."""

_FORWARD_SHARE = 0.9

_log = logging.getLogger(__name__)


class Steps:
    """Brings machines up and down, and records that where the step is complete by it."""

    def __init__(self, store: Store, driver: Driver) -> None:
        self._store = store
        self._driver = driver

    async def boot(self, vm: Vm, budget: float) -> Boot:
        """Boot a VM within `budget` seconds. Raises as `Driver.start`, and DeadlineExceeded."""
        # The rest is for clearing up, so that the caller hears why and not only that.
        within = budget * _FORWARD_SHARE
        try:
            async with asyncio.timeout(within):
                with metrics.stage("total"):
                    return await self._driver.start(vm)
        except TimeoutError:
            raise DeadlineExceeded(
                "START_TIMEOUT", f"VM {vm.name!r} did not boot within {within:.3g} s", vm=vm.name
            ) from None

    async def halt(self, vm: Vm, event: Event, request: Request | None, why: str) -> Vm:
        """Carry a PAUSE or RESUME out to its end. Raises as `Driver.pause` does."""
        if event is Event.PAUSE:
            await self._driver.pause(vm.id)
        else:
            await self._driver.resume(vm.id)
        done = "paused" if event is Event.PAUSE else "resumed"
        return await self._store.halted(request, vm.id, event, f"{done} {why}")

    async def undo_halt(self, request: Request | None, vm: Vm, event: Event) -> None:
        """Make the machine and what is wanted of it agree with its state, which stays."""
        paused = event is Event.RESUME
        with suppress(NexusError):  # it may not have come so far, or be gone
            await (self._driver.pause(vm.id) if paused else self._driver.resume(vm.id))
        await self._store.withdraw(request, vm, Goal.PAUSE if paused else Goal.RUN)

    async def put_down(self, vm: Vm, grace: float, why: str, request: Request | None = None) -> Vm:
        """Carry a stop out to its end: the ladder within `grace` seconds, what is left, the record.

        Raises Unavailable, FailedPrecondition: then the process may live on.
        """
        end = Exit("stop", f"stopped {why}")
        if vm.state in LIVE:
            down = await descend(self._driver, vm, grace)
            metrics.stops.add(1, {"rung": down.rung})
            end = replace(down.end, reason=f"stopped {why}: {RUNGS[down.rung][1]}")
            if down.rung is not Rung.NONE:
                end = replace(end, cause="stop")
            metrics.exits.add(1, {"cause": end.cause})
        await self._driver.kill(vm.id)
        return await self._store.rested(vm.id, Event.STOP, end, request=request)

    async def remove(self, vm: Vm, request: Request | None) -> None:
        """Carry a deletion out to its end: the process first, the record last."""
        await self._driver.kill(vm.id)
        await self._driver.delete(vm.id)
        await self._store.deleted(request, vm.id)

    async def last_words(self, vm: Vm) -> str:
        """Return the end of a VM's console where its restart policy may give it up by now."""
        if not nears_loop(vm, clock.now()):
            return ""
        try:
            return await self._driver.last_words(vm.id)
        except OSError as error:
            _log.warning("VM %s: its console cannot be read: %s", vm.id, error)
            return ""
