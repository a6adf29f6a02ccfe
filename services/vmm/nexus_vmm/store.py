"""The store of VMs: the truth about what there is and what was asked for.

Each change is one transaction, checked against the table of states inside it; then it is logged
and told to the hub, in the order in which it was stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from nexus_rpc import requests
from nexus_rpc.database import Database
from nexus_rpc.errors import AlreadyExists, FailedPrecondition
from nexus_vmm import amend, rows
from nexus_vmm.calls import GOALS, Begun, Elsewhere, reached
from nexus_vmm.restarts import after_host_boot, judge
from nexus_vmm.states import LIVE, Event, after
from nexus_vmm.vm import Goal, Restarts, Vm
from nexus_vmm.watch import Gone

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nexus_vmm.calls import Request
    from nexus_vmm.vm import Boot, Exit, Network, Spec, Transition
    from nexus_vmm.watch import Hub

_log = logging.getLogger(__name__)
_T = TypeVar("_T", bound="Vm | Gone | None")


class Store:
    """The VMs of this host. Use `Store.open`."""

    def __init__(self, database: Database, hub: Hub) -> None:
        self._database = database
        self._hub = hub
        self._order = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, hub: Hub) -> Store:
        """Open the database at `path` and tell `hub` what is in it. Raises DatabaseError."""
        store = cls(await Database.open(path, rows.MIGRATIONS), hub)
        for vm in await store.all():
            hub.publish(vm)
        return store

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def find(self, ref: str) -> Vm:
        """Return the VM with the id or name `ref`. Raises NotFound (VM_NOT_FOUND)."""
        return await self._database.read(lambda db: rows.known(db, ref))

    async def all(self) -> list[Vm]:
        """Return every VM, oldest first."""
        return await self._database.read(rows.every)

    async def page(self, after_seq: int, size: int) -> list[Vm]:
        """Return at most `size` VMs made after the one with `seq` `after_seq`, oldest first."""
        return await self._database.read(lambda db: rows.page(db, after_seq, size))

    async def history(self, vm: Vm) -> list[Transition]:
        """Return the last changes of the VM's state, oldest first."""
        return await self._database.read(lambda db: rows.history(db, vm.seq))

    async def firecracker_version(self) -> str:
        """Return the version of the last Firecracker that booted here, or ""."""
        return await self._database.read(rows.firecracker_version)

    async def reserve(self, request: Request, vm_id: str) -> str:
        """Return the id that the VM of a CreateVm gets: `vm_id`, or its first call's."""

        def work(db: sqlite3.Connection) -> str:
            return requests.claim(db, request.id, request.method, request.body, vm_id).subject

        return await self._database.write(work) if request.id else vm_id

    async def check_new(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm | None:
        """Return the VM if it was made already, or None if it can be.

        Raises AlreadyExists (NAME_TAKEN, VM_ID_TAKEN), and NotFound if it was made and deleted.
        """

        def work(db: sqlite3.Connection) -> Vm | None:
            claim = requests.claim(db, request.id, request.method, request.body, vm_id)
            made = claim.state == "done"
            vm = rows.find(db, vm_id)
            if vm is None and made:
                raise rows.not_found(vm_id)
            # What this very request made may have been given another interface since.
            if vm is not None and not made and (vm.name, vm.spec) != (name, spec):
                raise AlreadyExists(
                    "VM_ID_TAKEN",
                    f"VM {vm_id} exists with the name {vm.name!r} or with another spec; "
                    "leave vm_id out to get a fresh one",
                    vm=vm_id,
                )
            if vm is None and rows.find(db, name) is not None:
                raise _name_taken(name)
            return vm

        return await self._database.write(work)

    async def insert(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm:
        """Record a new VM, and that `request` is done. Raises AlreadyExists (NAME_TAKEN)."""

        def work(db: sqlite3.Connection) -> Vm:
            if rows.find(db, name) is not None:
                raise _name_taken(name)
            requests.finish(db, request.id)
            return rows.insert(db, vm_id, name, spec, _now())

        return await self._commit(work)

    async def forget(self, request: Request) -> None:
        """Free the request id of a call that failed and changed nothing."""
        if request.id:
            await self._database.write(lambda db: requests.forget(db, request.id))

    async def begin(self, request: Request, ref: str, event: Event, locked: str) -> Begun:
        """Check that `event`, which a caller asks for, may happen, and record that it is wanted.

        `locked` is the id of the VM whose lock is held. Nothing has happened yet when this raises
        FailedPrecondition (VM_STATE), NotFound, or Elsewhere.
        """

        def work(db: sqlite3.Connection) -> Begun:
            named = rows.find(db, ref)
            claim = requests.claim(
                db, request.id, request.method, request.body, named.id if named else ""
            )
            # A repeat is about the VM of the first call, whoever has the name now.
            vm = rows.find(db, claim.subject) if claim.subject else None
            if claim.state == "done" or (claim.state == "pending" and reached(event, vm)):
                requests.finish(db, request.id)
                return Begun(vm, done=True)
            if vm is None:
                raise rows.not_found(ref)
            if vm.id != locked:
                raise Elsewhere(vm.id)
            after(vm.state, event, vm.name)
            if vm.goal is Goal.DELETE and event is not Event.DELETE:
                raise FailedPrecondition(
                    "VM_STATE", f"VM {vm.name!r} is being deleted; repeat DeleteVm", vm=vm.name
                )
            vm = rows.set_goal(db, vm, GOALS[event])
            # What is asked for now takes the place of what the restart policy had pending.
            kept = Restarts() if event is Event.START else replace(vm.restarts, due=0)
            return Begun(rows.set_restarts(db, vm, kept), done=False)

        async with self._order:
            begun = await self._database.write(work)
            if begun.vm and not begun.done:
                self._tell_unless_known(begun.vm)
        return begun

    async def take_up(self, vm_id: str, due: int) -> Vm | None:
        """Record that the start that is pending for `due` is under way.

        Returns None, and records nothing, where it is not pending any more.
        """

        def work(db: sqlite3.Connection) -> Vm | None:
            vm = rows.find(db, vm_id)
            if vm is None or vm.restarts.due != due or vm.state in LIVE:
                return None
            return None if vm.goal is Goal.DELETE else rows.set_goal(db, vm, Goal.RUN)

        return await self._database.write(work)

    async def put_back(self, vm: Vm) -> Vm:
        """Record that the pending start that was under way is pending as before."""
        async with self._order:
            vm = await self._database.write(lambda db: rows.set_goal(db, vm, Goal.STOP))
            self._hub.publish(vm)
        return vm

    async def host_booted(self, boot: str) -> None:
        """Record the boot of the host that this is; after another one, what follows for all VMs."""

        def work(db: sqlite3.Connection) -> list[Vm]:
            last = rows.host_boot(db)
            rows.set_host_boot(db, boot)
            if last in ("", boot):
                return []
            now = _now()
            return [rows.set_restarts(db, vm, after_host_boot(vm, now)) for vm in rows.every(db)]

        for vm in await self._database.write(work):
            self._hub.publish(vm)

    async def started(
        self,
        request: Request | None,
        vm_id: str,
        boot: Boot,
        reason: str,
        event: Event = Event.START,
    ) -> Vm:
        """Record that the VM's vCPUs run (START or BOOT_AGAIN), and that `request` is done."""

        def work(db: sqlite3.Connection) -> Vm:
            vm = rows.move(db, rows.known(db, vm_id), event, reason, _now())
            rows.set_firecracker_version(db, boot.version)
            if request:
                requests.finish(db, request.id)
            # Pending is only what the policy starts; StartVm and the boot watchdog clear it.
            count = vm.restarts.count + (vm.restarts.due != 0)
            began = replace(vm.restarts, count=count, due=0, began=vm.changed)
            return rows.set_restarts(db, rows.set_boot(db, vm, boot), began)

        return await self._commit(work)

    async def halted(self, request: Request | None, vm_id: str, event: Event, reason: str) -> Vm:
        """Record that the VM's vCPUs stand still or run again (PAUSE, RESUME)."""

        def work(db: sqlite3.Connection) -> Vm:
            vm = rows.move(db, rows.known(db, vm_id), event, reason, _now())
            if request:
                requests.finish(db, request.id)
            return vm

        return await self._commit(work)

    async def withdraw(self, request: Request, vm: Vm, goal: Goal) -> None:
        """Record that what was begun for the VM has failed, and `goal` is wanted as before."""

        def work(db: sqlite3.Connection) -> None:
            requests.forget(db, request.id)
            rows.set_goal(db, vm, goal)

        await self._database.write(work)

    async def rested(
        self, vm_id: str, event: Event, end: Exit, words: str = "", request: Request | None = None
    ) -> Vm:
        """Record that the VM has no process (STOP, EXIT or START_FAILED), as wanted or not.

        What follows is up to its restart policy; `words` are its console's last. `request` is done
        with STOP and forgotten with START_FAILED.
        """

        def work(db: sqlite3.Connection) -> Vm:
            now = _now()
            vm = rows.known(db, vm_id)
            verdict = judge(vm, event, end, now, words)
            vm = rows.move(db, vm, event, verdict.reason, now)
            if verdict.gave_up:
                vm = rows.move(db, vm, Event.GAVE_UP, verdict.gave_up, now)
            if request and event is Event.STOP:
                requests.finish(db, request.id)
            elif request:
                requests.forget(db, request.id)
            return rows.set_restarts(db, rows.set_rest(db, vm), verdict.restarts)

        return await self._commit(work)

    async def report(self, ref: str, boot: str, event: Event, reason: str) -> Vm:
        """Record what the guest of the boot `boot` did; a repeat changes nothing.

        Raises FailedPrecondition (VM_STATE, STALE_BOOT), NotFound.
        """

        def work(db: sqlite3.Connection) -> tuple[Vm, bool]:
            vm = rows.known(db, ref)
            following = after(vm.state, event, vm.name)
            if vm.boot != boot:
                raise FailedPrecondition(
                    "STALE_BOOT", f"VM {vm.name!r} is at boot {vm.boot}, not {boot}", boot=vm.boot
                )
            if following is vm.state:
                return vm, False
            return rows.move(db, vm, event, reason, _now()), True

        async with self._order:
            vm, changed = await self._database.write(work)
            if changed:
                self._told(vm)
        return vm

    async def set_network(self, request: Request, ref: str, network: Network) -> Vm:
        """Record the interface that a VM is to have; see `amend.set_network`."""
        return await self._amend(lambda db: amend.set_network(db, request, ref, network))

    async def update(
        self, request: Request, ref: str, wanted: Spec, fields: Sequence[str], etag: str
    ) -> Vm:
        """Record other values of `fields` of a VM's spec; see `amend.update`."""
        return await self._amend(
            lambda db: amend.update(db, request, ref, wanted, fields, expected=etag)
        )

    async def deleted(self, request: Request | None, vm_id: str) -> None:
        """Record that nothing of the VM is left, and that `request` is done."""

        def work(db: sqlite3.Connection) -> Gone:
            rows.delete(db, vm_id)
            if request:
                requests.finish(db, request.id)
            return Gone(vm_id)

        await self._commit(work)

    async def _amend(self, work: Callable[[sqlite3.Connection], tuple[Vm, bool]]) -> Vm:
        async with self._order:
            vm, changed = await self._database.write(work)
            if changed:
                _log.info("VM %s: its spec was changed, etag %s", vm.id, amend.etag(vm))
                self._hub.publish(vm)
        return vm

    async def _commit(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        async with self._order:
            change = await self._database.write(work)
            if change is not None:
                self._told(change)
        return change

    def _tell_unless_known(self, vm: Vm) -> None:
        """Tell of a start that is not pending any more."""
        before = self._hub.get(vm.id)
        if before and before.restarts.due != vm.restarts.due:
            self._hub.publish(vm)

    def _told(self, change: Vm | Gone) -> None:
        if isinstance(change, Gone):
            _log.info("VM %s: deleted", change)
        elif before := self._hub.get(change.id):
            step = f"{before.state} -> {change.state}"
            _log.info("VM %s: %s (%s)", change.id, step, change.reason)
        else:
            _log.info("VM %s: created as %s", change.id, change.name)
        self._hub.publish(change)


def _now() -> int:
    """Return microseconds since the epoch."""
    return time.time_ns() // 1000


def _name_taken(name: str) -> AlreadyExists:
    return AlreadyExists(
        "NAME_TAKEN", f"there is a VM {name!r} already; delete it or choose another name", name=name
    )
