"""The store of VMs: the truth about what there is and what was asked for.

Each change is one transaction, checked against the table of states inside it; then it is logged
and told to the hub, in the order in which it was stored.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from nexus_rpc import requests
from nexus_rpc.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from nexus_rpc.ids import vm_uid
from nexus_vmm import clock
from nexus_vmm.clock import moment
from nexus_vmm.config import versions
from nexus_vmm.records import amend, changes, moves, rows
from nexus_vmm.records.changes import Gone
from nexus_vmm.records.damage import refuse_damaged
from nexus_vmm.states import BOOTING, Event, after
from nexus_vmm.vm import Goal, Vm

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from nexus_rpc.database import Database
    from nexus_vmm.api.listing import Listing, Page
    from nexus_vmm.calls import Begun, Request
    from nexus_vmm.clock import Moment
    from nexus_vmm.limits.admission import Admission
    from nexus_vmm.limits.capacity import Budget
    from nexus_vmm.records.watch import Hub
    from nexus_vmm.vm import Boot, Exit, Lifetime, Network, Spec, TimeToLive, Transition

_MAKES_ROOM = frozenset({Event.STOP, Event.DELETE})

_log = logging.getLogger(__name__)
_T = TypeVar("_T", bound="Vm | Gone | None")
_V = TypeVar("_V", bound="Vm | None")


class Store:
    """The VMs of this host. Use `Store.open`."""

    def __init__(self, database: Database, hub: Hub, admission: Admission) -> None:
        self._database = database
        self._hub = hub
        self._admission = admission
        self._order = asyncio.Lock()

    @classmethod
    async def open(cls, database: Database, hub: Hub, admission: Admission) -> Store:
        """Return the store in `database`, and tell `hub` what is in it."""
        store = cls(database, hub, admission)
        await store.fill_hub()
        return store

    async def fill_hub(self) -> None:
        """Tell the hub what there is, before anything changes, and begin the revisions to come."""
        try:
            await self._database.write(changes.begin, urgent=True)
        except ResourceExhausted as error:
            _log.error(
                "who follows will not notice if a copy of the database is put back: %s", error
            )
        self._hub.load(*await self._database.read(lambda db: (rows.every(db), changes.read(db))))

    async def find(self, ref: str) -> Vm:
        """Return the VM with the id or name `ref`. Raises NotFound (VM_NOT_FOUND)."""
        return await self._database.read(lambda db: rows.known(db, ref))

    async def look(self, vm_id: str) -> Vm | None:
        """Return the VM with the id `vm_id`, if there is one."""
        return await self._database.read(lambda db: rows.find(db, vm_id))

    async def host_boot(self) -> str:
        """Return the boot of the host that was recorded last, or ""."""
        return await self._database.read(rows.host_boot)

    async def all(self) -> list[Vm]:
        """Return every VM, oldest first."""
        return await self._database.read(rows.every)

    async def page(self, listing: Listing) -> Page:
        """Return the page of a list."""
        return await self._database.read(listing.page)

    async def history(self, vm: Vm) -> list[Transition]:
        """Return the last changes of the VM's state, oldest first."""
        return await self._database.read(lambda db: rows.history(db, vm.seq))

    async def budgets(self) -> list[Budget]:
        """Return the budgets of the host and the quotas of tags. Raises OSError."""
        return await self._database.read(self._admission.budgets)

    async def firecracker_version(self) -> str:
        """Return the version of the last Firecracker that booted here, or ""."""
        return await self._database.read(rows.firecracker_version)

    async def stop_grace(self) -> float:
        """Return the seconds that a guest gets to shut down where no caller says how many."""
        return (await self._database.read(versions.current)).stop_grace_seconds

    async def beat(self) -> None:
        """Write something, and read it again: whether the store works. Raises sqlite3.Error."""
        await self._database.write(lambda db: rows.beat(db, clock.now()))
        await self._database.read(rows.last_beat)

    async def reserve(self, request: Request, vm_id: str) -> str:
        """Return the id that the VM of a CreateVm gets: `vm_id`, its first call's, or a fresh."""

        def work(db: sqlite3.Connection) -> str:
            wanted = vm_id or rows.free_id(db)
            return requests.claim(db, request.id, request.method, request.body, wanted).subject

        return await (self._database.write(work) if request.id else self._fresh(vm_id))

    async def _fresh(self, vm_id: str) -> str:
        return vm_id or await self._database.read(rows.free_id)

    async def check_new(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm | None:
        """Return the VM if it was made already, or None if it can be.

        Raises AlreadyExists (NAME_TAKEN, VM_ID_TAKEN), NotFound if it was made and deleted, and
        ResourceExhausted (NO_CAPACITY, QUOTA_EXCEEDED).
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
            if vm is None:
                self._check_new(db, vm_id, name, spec)
            return vm

        return await self._database.write(work)

    async def insert(self, request: Request, vm_id: str, name: str, spec: Spec) -> Vm:
        """Record a new VM, and that `request` is done. Raises as `check_new` does."""

        def work(db: sqlite3.Connection) -> Vm:
            self._check_new(db, vm_id, name, spec)
            requests.finish(db, request.id)
            return rows.insert(db, vm_id, name, spec, clock.now())

        return await self._commit(work)

    def _check_new(self, db: sqlite3.Connection, vm_id: str, name: str, spec: Spec) -> None:
        if rows.find(db, name) is not None:
            raise _name_taken(name)
        if not rows.is_free(db, vm_id):
            raise AlreadyExists(
                "VM_ID_TAKEN",
                f"another VM has the user id {vm_uid(vm_id)} that {vm_id} gives; "
                "leave vm_id out to get a fresh one",
                vm=vm_id,
            )
        self._admission.check_new(db, name, spec)

    async def forget(self, request: Request) -> None:
        """Free the request id of a call that failed and changed nothing."""
        if request.id:
            await self._database.write(lambda db: requests.forget(db, request.id))

    async def begin(self, request: Request, ref: str, event: Event, locked: str) -> Begun:
        """Check that `event`, which a caller asks for, may happen, and record that it is wanted.

        `locked` is the id of the VM whose lock is held. Nothing has happened yet when this raises
        FailedPrecondition (VM_STATE), NotFound, ResourceExhausted (NO_CAPACITY, QUOTA_EXCEEDED),
        or Elsewhere.
        """
        async with self._order:
            begun = await self._database.write(
                lambda db: moves.begin(db, self._admission, request, ref, event, locked=locked),
                urgent=event in _MAKES_ROOM,
            )
            if begun.vm and not begun.done:
                self._tell_unless_known(begun.vm)
        return begun

    async def take_up(self, vm_id: str, due: int) -> Vm | None:
        """Record that the start that is pending for `due` is under way.

        Returns None, and records nothing, where it is not pending any more. Raises
        ResourceExhausted (NO_CAPACITY, QUOTA_EXCEEDED): it stays pending, and the VM's reason says
        what it waits for.
        """

        async with self._order:
            vm, refusal = await self._database.write(
                lambda db: moves.take_up(db, self._admission, vm_id, due)
            )
            if refusal and vm:
                self._hub.publish(vm)
        if refusal:
            raise refusal
        return vm

    async def put_back(self, vm: Vm) -> Vm:
        """Record that the pending start that was under way is pending as before."""
        return await self._tell(lambda db: rows.set_goal(db, vm, Goal.STOP))

    async def boots_again(self, vm_id: str) -> Vm | None:
        """Record that the VM is being booted once more; None where it is not booting any more."""

        def work(db: sqlite3.Connection) -> Vm | None:
            vm = rows.known(db, vm_id)
            return rows.set_goal(db, vm, Goal.AGAIN) if vm.state in BOOTING else None

        return await self._tell(work)

    async def host_booted(self, boot: str) -> bool:
        """Record the boot of the host that this is, and what follows for all VMs from another one.

        Returns whether it is another one than that of before.
        """
        changed = await self._database.write(lambda db: moves.host_booted(db, boot, moment()))
        for vm in changed or ():
            self._hub.publish(vm)
        return changed is not None

    async def started(
        self,
        request: Request | None,
        vm_id: str,
        boot: Boot,
        reason: str,
        event: Event = Event.START,
    ) -> Vm:
        """Record that the VM's vCPUs run (START or BOOT_AGAIN), and that `request` is done."""
        return await self._commit(
            lambda db: moves.started(
                db, request, vm_id, boot=boot, reason=reason, event=event, at=moment()
            )
        )

    async def halted(self, request: Request | None, vm_id: str, event: Event, reason: str) -> Vm:
        """Record that the VM's vCPUs stand still or run again (PAUSE, RESUME)."""
        return await self._commit(
            lambda db: moves.halted(db, request, vm_id, event=event, reason=reason, at=moment())
        )

    async def expire(self, vm_id: str, ttl: TimeToLive) -> Vm | None:
        """Record what is wanted of a VM whose time by `ttl` has ended; None if that was changed."""
        return await self._tell(lambda db: moves.expire(db, vm_id, ttl))

    async def use(self, vm_id: str, at: Moment, traffic: int) -> Vm:
        """Record that a VM was used, and what its TAP had carried by then."""
        return await self._tell(lambda db: moves.use(db, vm_id, at, traffic))

    async def warn(self, vm_id: str, life: Lifetime) -> Vm:
        """Record that the time to live of a VM, used last as `life` has it, is about to end."""
        return await self._tell(lambda db: moves.warn(db, vm_id, life))

    async def drain(self, vm_id: str) -> Vm | None:
        """Record that the host's shutdown stops a VM; None where there is nothing to stop."""
        return await self._tell(lambda db: moves.drain(db, vm_id))

    async def withdraw(self, request: Request | None, vm: Vm, goal: Goal) -> None:
        """Record that what was begun for the VM has failed, and `goal` is wanted as before."""

        def work(db: sqlite3.Connection) -> None:
            if request:
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
        return await self._commit(
            lambda db: moves.rested(
                db, request, vm_id, event=event, end=end, words=words, at=moment()
            ),
            urgent=event in _MAKES_ROOM,
        )

    async def report(self, ref: str, boot: str, event: Event, reason: str) -> Vm:
        """Record what the guest of the boot `boot` did; a repeat changes nothing.

        Raises FailedPrecondition (VM_STATE, STALE_BOOT), NotFound.
        """

        def work(db: sqlite3.Connection) -> tuple[Vm, bool]:
            vm = rows.known(db, ref)
            refuse_damaged(vm)
            following = after(vm.state, event, vm.name)
            if vm.boot != boot or vm.goal is Goal.AGAIN:
                now = "the one after" if vm.boot == boot else vm.boot
                raise FailedPrecondition(
                    "STALE_BOOT", f"VM {vm.name!r} is at boot {now}, not {boot}", boot=vm.boot
                )
            if following is vm.state:
                return vm, False
            return rows.move(db, vm, event, reason, clock.now()), True

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
            lambda db: amend.update(
                db, request, ref, wanted, fields, expected=etag, admission=self._admission
            )
        )

    async def deleted(self, request: Request | None, vm_id: str) -> None:
        """Record that nothing of the VM is left, and that `request` is done."""

        def work(db: sqlite3.Connection) -> Gone:
            gone = rows.delete(db, vm_id)
            if request:
                requests.finish(db, request.id)
            return gone

        await self._commit(work, urgent=True)

    async def _amend(self, work: Callable[[sqlite3.Connection], tuple[Vm, bool]]) -> Vm:
        async with self._order:
            vm, changed = await self._database.write(work)
            if changed:
                _log.info("VM %s: its spec was changed, etag %s", vm.id, amend.etag(vm))
                self._hub.publish(vm)
        return vm

    async def _tell(self, work: Callable[[sqlite3.Connection], _V]) -> _V:
        """Do `work`, which leaves the VM in its state, and tell the VM if there is one."""
        async with self._order:
            vm = await self._database.write(work)
            if vm is not None:
                self._hub.publish(vm)
        return vm

    async def _commit(
        self, work: Callable[[sqlite3.Connection], _T], *, urgent: bool = False
    ) -> _T:
        async with self._order:
            change = await self._database.write(work, urgent=urgent)
            if change is not None:
                self._told(change)
        return change

    def _tell_unless_known(self, vm: Vm) -> None:
        """Tell of a start that is not pending any more, and of a stop that has begun."""
        before = self._hub.get(vm.id)
        if before and (before.restarts.due != vm.restarts.due or vm.stopping):
            self._hub.publish(vm)

    def _told(self, change: Vm | Gone) -> None:
        if isinstance(change, Gone):
            _log.info("VM %s: deleted", change.id)
        elif before := self._hub.get(change.id):
            step = f"{before.state} -> {change.state}"
            _log.info("VM %s: %s (%s)", change.id, step, change.reason)
        else:
            _log.info("VM %s: created as %s", change.id, change.name)
        self._hub.publish(change)


def _name_taken(name: str) -> AlreadyExists:
    return AlreadyExists(
        "NAME_TAKEN", f"there is a VM {name!r} already; delete it or choose another name", name=name
    )
