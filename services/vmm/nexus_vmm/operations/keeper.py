"""Keeping VMs that are to run running: ends are noticed and recorded, and what follows is done.

A boot that ends by itself or falls silent before its guest was ready is done once more: emulated
CPUs, and rarely real ones, lose a boot in its first second. The second one stands.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError, NotFound, Unavailable
from nexus_vmm import clock, metrics
from nexus_vmm.operations.steps import START_SECONDS
from nexus_vmm.operations.timers import Timers
from nexus_vmm.operations.work import patiently
from nexus_vmm.restarts import seconds_left
from nexus_vmm.states import BOOTING, LIVE, Event, State
from nexus_vmm.vm import Exit, Goal

if TYPE_CHECKING:
    from nexus_vmm.calls import Request
    from nexus_vmm.driver import Driver
    from nexus_vmm.operations.steps import Steps
    from nexus_vmm.operations.work import Work
    from nexus_vmm.records.store import Store
    from nexus_vmm.vm import Vm

_BOOT_SECONDS = 600.0
"""After which a VM counts as booted; twice the longest that the gateway waits for an agent."""

_log = logging.getLogger(__name__)


class Keeper:
    """Notices when VMs end, and starts them again where that is due."""

    def __init__(self, store: Store, driver: Driver, steps: Steps, work: Work) -> None:
        self._store = store
        self._driver = driver
        self._steps = steps
        self._work = work
        self._timers = Timers(self._wake)
        self._closed = False

    def close(self) -> None:
        """Start nothing by itself any more."""
        self._closed = True
        self._timers.close()

    def schedule(self, vm: Vm) -> None:
        """Start a VM when its restart policy has that due, and not any more where it has not."""
        if vm.restarts.due and vm.state not in LIVE and not self._closed:
            left = seconds_left(vm, clock.now())
            self._timers.set(vm.id, vm.restarts.due, left)
        else:
            self._timers.cancel(vm.id)

    def cancel(self, vm_id: str) -> None:
        """Forget a start that is pending: something else was asked for."""
        self._timers.cancel(vm_id)

    def watch(self, vm: Vm) -> None:
        """Notice from now on when the process of a live VM ends."""
        self._work.start(self._await_end(vm))

    async def ended(self, vm: Vm, end: Exit) -> None:
        """Record that the process of a live VM ended, as wanted or not, and clear up after it."""
        event = Event.EXIT
        if vm.stopping:
            event = Event.STOP
            end = replace(end, cause="stop", reason=f"stopped as asked: {end.reason}")
        vm = await self._store.rested(vm.id, event, end, await self._steps.last_words(vm))
        try:
            await self._driver.kill(vm.id)
        except (NexusError, OSError) as error:
            _log.warning("VM %s: leftovers of its last run stay: %s", vm.id, error)
        self.schedule(vm)

    async def give_up(self, request: Request | None, vm: Vm, error: Exception) -> None:
        """Leave nothing of a failed start but the state FAILED and its reason."""
        try:
            await self._driver.kill(vm.id)
        except (NexusError, OSError) as worse:
            _log.error("VM %s: leftovers of a failed start stay: %s", vm.id, worse)
        end = Exit("start", _told(error))
        words = await self._steps.last_words(vm)
        self.schedule(
            await self._store.rested(vm.id, Event.START_FAILED, end, words, request=request)
        )

    async def lost(self, vm: Vm, boot: str, why: str) -> bool:
        """Boot a VM once more whose guest fell silent, where that is worth it; return if it is."""
        if vm.boot != boot or not await self._is_worth_another(vm):
            return False
        self._work.start(self._boot_again(vm, why))
        return True

    def _wake(self, vm_id: str, due: int) -> None:
        with suppress(Unavailable):  # vmm is stopping, and goes on when it is back
            self._work.start(self._restart(vm_id, due))

    async def _restart(self, vm_id: str, due: int) -> None:
        """Start a VM by its restart policy, unless something else happened to it meanwhile."""

        async def start() -> None:
            async with self._work.lock(vm_id):
                if not self._closed:
                    await self._start_again(vm_id, due)

        await patiently(f"VM {vm_id}: it cannot be started again yet", start)

    async def _start_again(self, vm_id: str, due: int) -> None:
        vm = await self._store.take_up(vm_id, due)
        if vm is None:
            return
        metrics.restarts.add(1)
        try:
            boot = await self._steps.boot(vm, START_SECONDS)
            reason = f"started again by its policy, {vm.spec.restart.condition}"
            vm = await self._store.started(None, vm.id, boot, reason)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told and tried again
            await self.give_up(None, vm, error)
        else:
            self.watch(vm)

    async def _is_worth_another(self, vm: Vm) -> bool:
        """Whether this is the VM's first boot since its start, and its guest was never ready."""
        if vm.state not in BOOTING or vm.goal is not Goal.RUN:
            return False
        for step in reversed(await self._store.history(vm)):
            if step.new is State.RUNNING:
                # Without a gateway nobody says that a guest is ready, and it may run for days.
                age = time.time() - step.time / 1e6
                return step.old not in LIVE and age < _BOOT_SECONDS
            if step.new not in BOOTING:
                return False  # it was ready, or lost, and is on its way back
        return False

    async def _boot_again(self, vm: Vm, why: str) -> None:
        """Boot a VM whose guest was not ready, unless something else happened to it meanwhile."""

        async def boot() -> None:
            async with self._work.lock(vm.id):
                try:
                    now = await self._store.find(vm.id)
                except NotFound:
                    return
                if now.boot != vm.boot or now.state not in LIVE:
                    return
                if now.goal is Goal.AGAIN:
                    # Neither the second boot nor its end could be recorded.
                    await self.ended(now, Exit("start", f"{why}; booting it once more failed"))
                elif await self._is_worth_another(now):
                    await self._carry_on(now, why)

        await patiently(f"VM {vm.id}: it cannot be booted once more yet", boot)

    async def _carry_on(self, vm: Vm, why: str) -> bool:
        """Boot a VM once more. Returns False, and does nothing, if its guest was ready by then."""
        begun = await self._store.boots_again(vm.id)
        if begun is None:
            return False
        _log.warning("VM %s: %s; booting it once more", vm.id, why)
        metrics.exits.add(1, {"cause": "boot again"})
        try:
            boot = await self._steps.boot(begun, START_SECONDS)
            reason = f"booted once more: {why}"
            vm = await self._store.started(None, vm.id, boot, reason, Event.BOOT_AGAIN)
        except Exception as error:  # noqa: BLE001  # whatever it is, the VM is down and that is told
            why = f"{why}; booting it once more failed: {_told(error)}"
            await self.ended(begun, Exit("start", why))
        else:
            self.watch(vm)
        return True

    async def _await_end(self, vm: Vm) -> None:
        end = await self._driver.wait(vm.id, vm.boot)
        # Ending the service would mend no disk, and cost all other VMs their keeper.
        await patiently(
            f"VM {vm.id}: its end cannot be recorded yet", lambda: self._take_note(vm, end)
        )

    async def _take_note(self, vm: Vm, end: Exit) -> None:
        async with self._work.lock(vm.id):
            # An operation that held the lock may have recorded this end, or begun a new boot.
            try:
                now = await self._store.find(vm.id)
            except NotFound:
                return
            if now.boot != vm.boot or now.state not in LIVE:
                return
            again = end.cause == "shutdown" and await self._is_worth_another(now)
            if again and await self._carry_on(now, end.reason):
                return
            metrics.exits.add(1, {"cause": end.cause})
            await self.ended(now, end)


def _told(error: Exception) -> str:
    return error.message if isinstance(error, NexusError) else f"defect of vmm: {error!r}"
