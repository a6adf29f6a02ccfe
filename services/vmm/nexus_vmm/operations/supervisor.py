"""The operations on VMs: each a short plan of steps, one operation at a time for each VM.

Every plan begins by checking and recording what is wanted, in one transaction, before it touches
anything; a kill between two steps leaves what `reconcile` carries on from.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nexus_rpc.errors import NotFound, Unavailable
from nexus_vmm.calls import Elsewhere
from nexus_vmm.operations.drains import drain
from nexus_vmm.operations.expiry import Expiry
from nexus_vmm.operations.keeper import Keeper
from nexus_vmm.operations.steps import START_SECONDS, Steps
from nexus_vmm.states import Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nexus_vmm.calls import Begun, Request
    from nexus_vmm.driver import Driver
    from nexus_vmm.operations.work import Work
    from nexus_vmm.records.store import Store
    from nexus_vmm.vm import Network, Spec, Vm


class Supervisor:
    """Creates, starts, stops and deletes VMs, and notices when one ends."""

    def __init__(self, store: Store, driver: Driver, work: Work) -> None:
        self._store = store
        self._driver = driver
        self._draining = False
        self.work = work
        self.steps = Steps(store, driver)
        self.keeper = Keeper(store, driver, self.steps, work)
        self.expiry = Expiry(store, driver, self.steps, work)

    def close(self) -> None:
        """Do nothing by itself any more."""
        self.keeper.close()
        self.expiry.close()

    async def create(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm:
        """Record a VM and make its disk (see CreateVm). `vm_id` "" makes a fresh id."""
        return await self.work.run(self._create(request, vm_id, name, spec))

    async def start(self, request: Request, ref: str, budget: float | None) -> Vm:
        """Boot a VM within `budget` seconds (see StartVm)."""
        return await self.work.run(
            self._start(request, ref, START_SECONDS if budget is None else budget)
        )

    async def pause(self, request: Request, ref: str) -> Vm:
        """Halt a VM's vCPUs (see PauseVm)."""
        return await self.work.run(self._halt(request, ref, Event.PAUSE))

    async def resume(self, request: Request, ref: str) -> Vm:
        """Let a VM's vCPUs run again (see ResumeVm)."""
        return await self.work.run(self._halt(request, ref, Event.RESUME))

    async def stop(self, request: Request, ref: str, grace: float) -> Vm:
        """Stop a VM, giving its guest `grace` seconds (see StopVm)."""
        return await self.work.run(self._stop(request, ref, grace))

    async def delete(self, request: Request, ref: str) -> None:
        """Delete a VM that is not live (see DeleteVm)."""
        await self.work.run(self._delete(request, ref))

    async def report(self, ref: str, boot: str, event: Event, reason: str) -> Vm:
        """Record what a guest did (see ReportGuest)."""
        return await self.work.run(self._report(ref, boot, event, reason))

    async def update(
        self, request: Request, ref: str, wanted: Spec, fields: Sequence[str], etag: str
    ) -> Vm:
        """Change a VM's spec (see UpdateVm)."""
        return await self.work.run(self._update(request, ref, wanted, fields, etag))

    async def set_network(self, request: Request, ref: str, network: Network) -> Vm:
        """Change the addresses of a VM's interface (see UpdateNetworkInterface)."""
        return await self.work.run(self._store.set_network(request, ref, network))

    async def touch(self, ref: str) -> Vm:
        """Note that a VM is in use (see TouchVm)."""
        return await self.work.run(self._touch(ref))

    async def drain(self, grace: float) -> int:
        """Stop all VMs, and start none any more; return how many were stopped (see DrainVms)."""
        self._draining = True
        self.keeper.close()
        return await self.work.run(drain(self._store, self.steps, self.work, grace))

    async def _update(
        self, request: Request, ref: str, wanted: Spec, fields: Sequence[str], etag: str
    ) -> Vm:
        vm = await self._store.update(request, ref, wanted, fields, etag)
        self.keeper.schedule(vm)
        return vm

    async def _touch(self, ref: str) -> Vm:
        return await self.expiry.touch(await self._store.find(ref))

    async def _create(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm:
        vm_id = await self._store.reserve(request, vm_id)
        async with self.work.lock(vm_id):
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
                boot = await self.steps.boot(vm, budget)
                vm = await self._store.started(request, vm.id, boot, "Firecracker runs")
            except Exception as error:
                await self.keeper.give_up(request, vm, error)
                raise
            self.keeper.watch(vm)
            return vm

    async def _halt(self, request: Request, ref: str, event: Event) -> Vm:
        async with self._begun(request, ref, event) as begun:
            vm = _still(begun.vm, ref)
            if begun.done:
                return vm
            try:
                return await self.steps.halt(vm, event, request, "as asked")
            except Exception:
                await self.steps.undo_halt(request, vm, event)
                raise

    async def _stop(self, request: Request, ref: str, grace: float) -> Vm:
        async with self._begun(request, ref, Event.STOP) as begun:
            vm = _still(begun.vm, ref)
            if begun.done:
                return vm
            return await self.steps.put_down(vm, grace, "as asked", request)

    async def _delete(self, request: Request, ref: str) -> None:
        async with self._begun(request, ref, Event.DELETE) as begun:
            if begun.vm is None or begun.done:
                return
            await self.steps.remove(begun.vm, request)

    async def _report(self, ref: str, boot: str, event: Event, reason: str) -> Vm:
        if event is Event.LOST:
            vm = await self._store.find(ref)
            if await self.keeper.lost(vm, boot, reason):
                return vm
        return await self._store.report(ref, boot, event, reason)

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
            async with self.work.lock(locked):
                if event is Event.START and self._draining:
                    raise Unavailable("STOPPING", "the host shuts down, and its VMs with it")
                try:
                    begun = await self._store.begin(request, ref, event, locked)
                except Elsewhere as other:
                    locked = other.vm_id
                    continue
                if not begun.done:
                    self.keeper.cancel(locked)
                yield begun
                return


def _still(vm: Vm | None, ref: str) -> Vm:
    if vm is None:
        raise NotFound("VM_NOT_FOUND", f"VM {ref!r} was deleted meanwhile", vm=ref)
    return vm
