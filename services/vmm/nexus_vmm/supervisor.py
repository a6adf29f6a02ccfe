"""The operations on VMs: each a short plan of steps, one operation at a time for each VM.

A boot that ends by itself or falls silent before its guest was ready is done once more: emulated
CPUs, and rarely real ones, lose a boot in its first second. The second one stands.

Every plan begins by checking and recording what is wanted, in one transaction, before it touches
anything; a kill between two steps leaves what `reconcile` carries on from.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_rpc.errors import (
    DeadlineExceeded,
    NexusError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from nexus_rpc.ids import new_vm_id
from nexus_vmm import metrics
from nexus_vmm.calls import Elsewhere
from nexus_vmm.ladder import RUNGS, Rung, descend
from nexus_vmm.restarts import nears_loop, seconds_left
from nexus_vmm.states import BOOTING, LIVE, Event, State
from nexus_vmm.timers import Timers
from nexus_vmm.vm import Exit, Goal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nexus_vmm.calls import Begun, Request
    from nexus_vmm.driver import Driver
    from nexus_vmm.store import Store
    from nexus_vmm.vm import Boot, Spec, Vm
    from nexus_vmm.work import Work

START_SECONDS = 60.0
"""What a start may take if the caller sets no deadline."""

_FORWARD_SHARE = 0.9
_BOOT_SECONDS = 600.0
"""After which a VM counts as booted; twice the longest that the gateway waits for an agent."""
_ROOM_SECONDS = 5.0
"""After which a change that found the host's disk full is tried again."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Creates, starts, stops and deletes VMs, and notices when one ends."""

    def __init__(self, store: Store, driver: Driver, work: Work) -> None:
        self._store = store
        self._driver = driver
        self._work = work
        self._timers = Timers(self._wake)

    def close(self) -> None:
        """Start nothing by itself any more."""
        self._timers.close()

    async def create(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm:
        """Record a VM and make its disk (see CreateVm). `vm_id` "" makes a fresh id."""
        return await self._work.run(self._create(request, vm_id, name, spec))

    async def start(self, request: Request, ref: str, budget: float | None) -> Vm:
        """Boot a VM within `budget` seconds (see StartVm)."""
        return await self._work.run(
            self._start(request, ref, START_SECONDS if budget is None else budget)
        )

    async def pause(self, request: Request, ref: str) -> Vm:
        """Halt a VM's vCPUs (see PauseVm)."""
        return await self._work.run(self._halt(request, ref, Event.PAUSE))

    async def resume(self, request: Request, ref: str) -> Vm:
        """Let a VM's vCPUs run again (see ResumeVm)."""
        return await self._work.run(self._halt(request, ref, Event.RESUME))

    async def stop(self, request: Request, ref: str, grace: float) -> Vm:
        """Stop a VM, giving its guest `grace` seconds (see StopVm)."""
        return await self._work.run(self._stop(request, ref, grace))

    async def delete(self, request: Request, ref: str) -> None:
        """Delete a VM that is not live (see DeleteVm)."""
        await self._work.run(self._delete(request, ref))

    async def report(self, ref: str, boot: str, event: Event, reason: str) -> Vm:
        """Record what a guest did (see ReportGuest)."""
        return await self._work.run(self._report(ref, boot, event, reason))

    async def update(
        self, request: Request, ref: str, wanted: Spec, fields: Sequence[str], etag: str
    ) -> Vm:
        """Change a VM's spec (see UpdateVm)."""
        vm = await self._store.update(request, ref, wanted, fields, etag)
        self.schedule(vm)
        return vm

    def schedule(self, vm: Vm) -> None:
        """Start a VM when its restart policy has that due, and not any more where it has not."""
        if vm.restarts.due and vm.state not in LIVE:
            left = seconds_left(vm, time.time_ns() // 1000)
            self._timers.set(vm.id, vm.restarts.due, left)
        else:
            self._timers.cancel(vm.id)

    def watch(self, vm: Vm) -> None:
        """Notice from now on when the process of a live VM ends."""
        self._work.start(self._await_end(vm))

    async def _create(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm:
        vm_id = await self._store.reserve(request, vm_id or new_vm_id())
        async with self._work.lock(vm_id):
            try:
                made = await self._store.check_new(request, vm_id, name, spec)
                if made:
                    return made
                try:
                    await self._driver.create(vm_id, spec)
                    return await self._store.insert(request, vm_id, name, spec)
                except Exception:
                    await self._driver.discard(vm_id)
                    raise
            except Exception:
                await self._store.forget(request)
                raise

    async def _start(self, request: Request, ref: str, budget: float) -> Vm:
        async with self._begun(request, ref, Event.START) as begun:
            vm = _still(begun.vm, ref)
            if begun.done:
                return vm
            try:
                boot = await self._boot(vm, budget)
                vm = await self._store.started(request, vm.id, boot, "Firecracker runs")
            except Exception as error:
                await self._give_up(request, vm, error)
                raise
            self.watch(vm)
            return vm

    async def _halt(self, request: Request, ref: str, event: Event) -> Vm:
        async with self._begun(request, ref, event) as begun:
            vm = _still(begun.vm, ref)
            if begun.done:
                return vm
            try:
                return await self.halt(vm, event, request, "as asked")
            except Exception:
                await self._undo_halt(request, vm, event)
                raise

    async def halt(self, vm: Vm, event: Event, request: Request | None, why: str) -> Vm:
        """Carry a PAUSE or RESUME out to its end. Raises as `Driver.pause` does."""
        if event is Event.PAUSE:
            await self._driver.pause(vm.id)
        else:
            await self._driver.resume(vm.id)
        done = "paused" if event is Event.PAUSE else "resumed"
        return await self._store.halted(request, vm.id, event, f"{done} {why}")

    async def _undo_halt(self, request: Request, vm: Vm, event: Event) -> None:
        """Make the machine and what is wanted of it agree with its state, which stays."""
        paused = event is Event.RESUME
        with suppress(NexusError):  # it may not have come so far, or be gone
            await (self._driver.pause(vm.id) if paused else self._driver.resume(vm.id))
        await self._store.withdraw(request, vm, Goal.PAUSE if paused else Goal.RUN)

    async def _stop(self, request: Request, ref: str, grace: float) -> Vm:
        async with self._begun(request, ref, Event.STOP) as begun:
            vm = _still(begun.vm, ref)
            if begun.done:
                return vm
            end = await self._halt_for_good(vm, grace, "as asked")
            return await self._store.rested(vm.id, Event.STOP, end, request=request)

    async def _halt_for_good(self, vm: Vm, grace: float, why: str) -> Exit:
        """Leave no process of a VM, giving its guest `grace` seconds; return how it ended."""
        end = Exit("stop", f"stopped {why}")
        if vm.state in LIVE:
            down = await descend(self._driver, vm, grace)
            metrics.stops.add(1, {"rung": down.rung})
            end = replace(down.end, reason=f"stopped {why}: {RUNGS[down.rung][1]}")
            if down.rung is not Rung.NONE:
                end = replace(end, cause="stop")
            metrics.exits.add(1, {"cause": end.cause})
        await self._driver.kill(vm.id)
        return end

    async def _delete(self, request: Request, ref: str) -> None:
        async with self._begun(request, ref, Event.DELETE) as begun:
            if begun.vm is None or begun.done:
                return
            await self.remove(begun.vm, request)

    async def remove(self, vm: Vm, request: Request | None) -> None:
        """Carry a deletion out to its end: the process first, the record last."""
        await self._driver.kill(vm.id)
        await self._driver.delete(vm.id)
        await self._store.deleted(request, vm.id)

    async def _boot(self, vm: Vm, budget: float) -> Boot:
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

    def _wake(self, vm_id: str, due: int) -> None:
        with suppress(Unavailable):  # vmm is stopping, and goes on when it is back
            self._work.start(self._restart(vm_id, due))

    async def _restart(self, vm_id: str, due: int) -> None:
        """Start a VM by its restart policy, unless something else happened to it meanwhile."""
        while True:
            try:
                async with self._work.lock(vm_id):
                    return await self._start_again(vm_id, due)
            except ResourceExhausted as error:
                _log.error("VM %s: cannot be started again yet: %s", vm_id, error)
            await asyncio.sleep(_ROOM_SECONDS)

    async def _start_again(self, vm_id: str, due: int) -> None:
        vm = await self._store.take_up(vm_id, due)
        if vm is None:
            return
        metrics.restarts.add(1)
        try:
            boot = await self._boot(vm, START_SECONDS)
            reason = f"started again by its policy, {vm.spec.restart.condition}"
            vm = await self._store.started(None, vm.id, boot, reason)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told and tried again
            await self._give_up(None, vm, error)
        else:
            self.watch(vm)

    async def _give_up(self, request: Request | None, vm: Vm, error: Exception) -> None:
        """Leave nothing of a failed start but the state FAILED and its reason."""
        try:
            await self._driver.kill(vm.id)
        except (NexusError, OSError) as worse:
            _log.error("VM %s: leftovers of a failed start stay: %s", vm.id, worse)
        end = Exit("start", _told(error))
        words = await self._last_words(vm)
        self.schedule(
            await self._store.rested(vm.id, Event.START_FAILED, end, words, request=request)
        )

    async def _report(self, ref: str, boot: str, event: Event, reason: str) -> Vm:
        if event is Event.LOST:
            vm = await self._store.find(ref)
            if vm.boot == boot and await self._is_worth_another(vm):
                self._work.start(self._boot_again(vm, reason))
                return vm
        return await self._store.report(ref, boot, event, reason)

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
        async with self._work.lock(vm.id):
            try:
                now = await self._store.find(vm.id)
            except NotFound:
                return
            if now.boot == vm.boot and await self._is_worth_another(now):
                await self._carry_on(now, why)

    async def _carry_on(self, vm: Vm, why: str) -> None:
        _log.warning("VM %s: %s; booting it once more", vm.id, why)
        metrics.exits.add(1, {"cause": "boot again"})
        try:
            boot = await self._boot(vm, START_SECONDS)
        except Exception as error:  # noqa: BLE001  # whatever it is, the VM is down and that is told
            why = f"{why}; booting it once more failed: {_told(error)}"
            await self.ended(vm, Exit("start", why))
            return
        reason = f"booted once more: {why}"
        self.watch(await self._store.started(None, vm.id, boot, reason, Event.BOOT_AGAIN))

    async def _await_end(self, vm: Vm) -> None:
        end = await self._driver.wait(vm.id)
        while True:
            try:
                return await self._take_note(vm, end)
            except ResourceExhausted as error:
                # Ending the service would not make room, and cost all other VMs their keeper.
                _log.error("VM %s: its end cannot be recorded yet: %s", vm.id, error)
            await asyncio.sleep(_ROOM_SECONDS)

    async def _take_note(self, vm: Vm, end: Exit) -> None:
        async with self._work.lock(vm.id):
            # An operation that held the lock may have recorded this end, or begun a new boot.
            try:
                now = await self._store.find(vm.id)
            except NotFound:
                return
            if now.boot != vm.boot or now.state not in LIVE:
                return
            if end.cause == "shutdown" and await self._is_worth_another(now):
                await self._carry_on(now, end.reason)
                return
            metrics.exits.add(1, {"cause": end.cause})
            await self.ended(now, end)

    async def ended(self, vm: Vm, end: Exit) -> None:
        """Record that the process of a live VM ended, as wanted or not, and clear up after it."""
        event = Event.STOP if vm.goal is Goal.STOP else Event.EXIT
        vm = await self._store.rested(vm.id, event, end, await self._last_words(vm))
        try:
            await self._driver.kill(vm.id)
        except (NexusError, OSError) as error:
            _log.warning("VM %s: leftovers of its last run stay: %s", vm.id, error)
        self.schedule(vm)

    async def _last_words(self, vm: Vm) -> str:
        """Return the end of a VM's console where its restart policy may give it up by now."""
        if not nears_loop(vm, time.time_ns() // 1000):
            return ""
        try:
            return await self._driver.last_words(vm.id)
        except OSError as error:
            _log.warning("VM %s: its console cannot be read: %s", vm.id, error)
            return ""

    @asynccontextmanager
    async def _begun(self, request: Request, ref: str, event: Event) -> AsyncIterator[Begun]:
        """Begin an operation, and hold the lock of the VM that it is about.

        While the lock is waited for, `ref` may come to mean another VM: then that one's is taken.
        """
        try:
            locked = (await self._store.find(ref)).id
        except NotFound:
            locked = ref
        while True:
            async with self._work.lock(locked):
                try:
                    begun = await self._store.begin(request, ref, event, locked)
                except Elsewhere as other:
                    locked = other.vm_id
                    continue
                if not begun.done:
                    self._timers.cancel(locked)
                yield begun
                return


def _told(error: Exception) -> str:
    return error.message if isinstance(error, NexusError) else f"defect of vmm: {error!r}"


def _still(vm: Vm | None, ref: str) -> Vm:
    if vm is None:
        raise NotFound("VM_NOT_FOUND", f"VM {ref!r} was deleted meanwhile", vm=ref)
    return vm
