"""Ending the time to live of VMs: one wake-up for each VM that has one, and nothing is polled.

What comes of a use is kept in memory for a quarter of the idle time before it is stored, so that a
VM that is always in use costs no writes; a restart of vmm may forget that much.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError, NotFound, Unavailable
from nexus_vmm import lifetime
from nexus_vmm.clock import moment
from nexus_vmm.lifetime import Due
from nexus_vmm.operations.timers import Timers
from nexus_vmm.records.changes import Gone
from nexus_vmm.states import Event
from nexus_vmm.vm import Goal, Vm

if TYPE_CHECKING:
    from nexus_vmm.clock import Moment
    from nexus_vmm.driver import Driver
    from nexus_vmm.operations.steps import Steps
    from nexus_vmm.operations.work import Work
    from nexus_vmm.records.store import Store
    from nexus_vmm.records.watch import Hub
    from nexus_vmm.vm import Lifetime

_RETRY_SECONDS = 10.0
"""After which what could not be done to a VM whose time has ended is tried again."""

_log = logging.getLogger(__name__)


class Expiry:
    """Warns of the end of VMs' time to live, and brings it about."""

    def __init__(self, store: Store, driver: Driver, steps: Steps, work: Work) -> None:
        self._store = store
        self._driver = driver
        self._steps = steps
        self._work = work
        self._began = moment()
        self._timers = Timers(self._wake)
        self._used: dict[str, Lifetime] = {}
        # Why VMs are being brought to their end.
        self._retries: dict[str, str] = {}

    def close(self) -> None:
        """End no VM any more."""
        self._timers.close()

    async def follow(self, hub: Hub) -> None:
        """Keep to what VMs are, as `hub` tells it, until vmm stops."""
        with suppress(Unavailable):
            async for _, what in hub.watch():
                if isinstance(what, Vm):
                    self._schedule(what)
                elif isinstance(what, Gone):
                    self._forget(what.id)

    async def touch(self, vm: Vm) -> Vm:
        """Note that a VM is in use; return it with the lifetime that follows."""
        at = moment()
        vm = self._known(vm, at)
        if vm.spec.ttl.idle_seconds and vm.lifetime.began:
            vm = await self._use(vm, at, vm.lifetime.traffic)
            self._schedule(vm)
        return vm

    def _schedule(self, vm: Vm) -> None:
        if vm.id in self._retries:
            return  # it is woken for that
        if not (vm.spec.ttl.max_seconds or vm.spec.ttl.idle_seconds):
            self._forget(vm.id)
            return
        at = moment()
        plan = lifetime.plan(self._known(vm, at), at)
        if plan.due is not Due.NOTHING:
            self._timers.set(vm.id, 0, 0)
        elif plan.again is not None:
            self._timers.set(vm.id, 0, plan.again)
        else:
            self._timers.cancel(vm.id)
            self._used.pop(vm.id, None)

    def _known(self, vm: Vm, at: Moment) -> Vm:
        """Return `vm` with the last use that is known, by the clock as it is."""
        life = lifetime.shift(vm.lifetime, at)
        life = lifetime.after_return(life, vm.spec.ttl, self._began, at)
        kept = self._used.get(vm.id)
        if kept and kept.used > life.used:
            life = replace(life, used=kept.used, traffic=kept.traffic)
        return replace(vm, lifetime=life)

    async def _use(self, vm: Vm, at: Moment, traffic: int) -> Vm:
        # Before anything is waited for: who looks meanwhile is to know, though the disk be full.
        self._used[vm.id] = life = lifetime.use(vm.lifetime, at, traffic)
        if lifetime.is_worth_storing(await self._store.find(vm.id), at):
            return await self._store.use(vm.id, at, traffic)
        return replace(vm, lifetime=life)

    def _wake(self, vm_id: str, _: int) -> None:
        with suppress(Unavailable):  # vmm is stopping, and goes on when it is back
            self._work.start(self._look(vm_id))

    async def _look(self, vm_id: str) -> None:
        async with self._work.lock(vm_id):
            try:
                await self._act(await self._store.find(vm_id))
            except NotFound:
                self._forget(vm_id)
            except (NexusError, OSError) as error:
                _log.error("VM %s: the end of its time to live has to wait: %s", vm_id, error)
                self._timers.set(vm_id, 0, _RETRY_SECONDS)

    async def _act(self, vm: Vm) -> None:
        """Do what is due for a VM, whose lock is held."""
        why = self._retries.get(vm.id)
        if why is None or not (vm.stopping or vm.goal is Goal.DELETE):
            await self._measure(vm)
            vm = await self._store.find(vm.id)
            at = moment()
            vm = self._known(vm, at)
            due = lifetime.plan(vm, at).due
            if due is not Due.END:
                self._retries.pop(vm.id, None)
                if due is Due.WARNING:
                    vm = await self._store.warn(vm.id, vm.lifetime)
                return self._schedule(vm)
            why = self._retries[vm.id] = lifetime.reason(vm, at)
            ending = await self._store.expire(vm.id, vm.spec.ttl)
            if ending is None:
                del self._retries[vm.id]
                return self._schedule(await self._store.find(vm.id))
            vm = ending
        await self._end(vm, why)
        self._forget(vm.id)
        return None

    async def _measure(self, vm: Vm) -> None:
        """Note that a VM is in use if its TAP has carried anything since its last use."""
        if not lifetime.watches_traffic(vm):
            return
        packets = await self._driver.traffic(vm)
        at = moment()
        vm = self._known(vm, at)
        if packets != vm.lifetime.traffic:
            await self._use(vm, at, packets)

    async def _end(self, vm: Vm, why: str) -> None:
        """Do what is wanted of a VM whose time has ended."""
        if vm.goal is Goal.PAUSE:
            try:
                await self._steps.halt(vm, Event.PAUSE, None, why)
            except Exception:
                await self._steps.undo_halt(None, vm, Event.PAUSE)
                raise
        if vm.goal is Goal.STOP or vm.stopping:
            vm = await self._steps.put_down(vm, await self._store.stop_grace(), why)
        if vm.goal is Goal.DELETE:
            await self._steps.remove(vm, None)

    def _forget(self, vm_id: str) -> None:
        self._timers.cancel(vm_id)
        self._used.pop(vm_id, None)
        self._retries.pop(vm_id, None)
