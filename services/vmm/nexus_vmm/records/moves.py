"""What happens to a VM, as the store records it.

The functions run inside a transaction of the database thread: each looks at the VM as it is by
then, checks what it refuses, and only then changes it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_rpc import requests
from nexus_rpc.errors import FailedPrecondition, ResourceExhausted
from nexus_vmm import lifetime, restarts
from nexus_vmm.calls import GOALS, Begun, Elsewhere, reached
from nexus_vmm.records import rows
from nexus_vmm.records.damage import refuse_damaged
from nexus_vmm.states import LIVE, Event, after
from nexus_vmm.vm import ExpireAction, Goal, Lifetime, Restarts

if TYPE_CHECKING:
    import sqlite3

    from nexus_vmm.calls import Request
    from nexus_vmm.clock import Moment
    from nexus_vmm.limits.admission import Admission
    from nexus_vmm.vm import Boot, Exit, TimeToLive, Vm

EXPIRE_GOALS = {
    ExpireAction.STOP: Goal.STOP,
    ExpireAction.PAUSE: Goal.PAUSE,
    ExpireAction.DELETE: Goal.DELETE,
}
"""What is wanted of a VM whose time has ended."""


def begin(
    db: sqlite3.Connection,
    admission: Admission,
    request: Request,
    ref: str,
    event: Event,
    *,
    locked: str,
) -> Begun:
    """Record that `event` is wanted, if it may happen; see `Store.begin`."""
    named = rows.find(db, ref)
    subject = named.id if named else ""
    claim = requests.claim(db, request.id, request.method, request.body, subject)
    # A repeat is about the VM of the first call, whoever has the name now.
    vm = rows.find(db, claim.subject) if claim.subject else None
    if claim.state == "done" or (claim.state == "pending" and reached(event, vm)):
        requests.finish(db, request.id)
        return Begun(vm, done=True)
    if vm is None:
        raise rows.not_found(ref)
    if vm.id != locked:
        raise Elsewhere(vm.id)
    refuse_damaged(vm, deletion=event is Event.DELETE)
    after(vm.state, event, vm.name)
    if vm.goal is Goal.DELETE and event is not Event.DELETE:
        raise FailedPrecondition(
            "VM_STATE", f"VM {vm.name!r} is being deleted; repeat DeleteVm", vm=vm.name
        )
    if event is Event.START:
        admission.check_start(db, vm)
    vm = rows.set_goal(db, vm, GOALS[event])
    # What is asked for now takes the place of what the restart policy had pending.
    kept = Restarts() if event is Event.START else replace(vm.restarts, due=0)
    return Begun(rows.set_restarts(db, vm, kept), done=False)


def take_up(
    db: sqlite3.Connection, admission: Admission, vm_id: str, due: int
) -> tuple[Vm | None, ResourceExhausted | None]:
    """Record that the start pending for `due` is under way, or that there is no room for it."""
    vm = rows.find(db, vm_id)
    if vm is None or vm.restarts.due != due or vm.state in LIVE or vm.goal is Goal.DELETE:
        return None, None
    try:
        admission.check_start(db, vm)
    except ResourceExhausted as error:
        why = f"to be started again once there is room: {error.message}"
        return None if vm.reason == why else rows.set_reason(db, vm, why), error
    return rows.set_goal(db, vm, Goal.RUN), None


def host_booted(db: sqlite3.Connection, boot: str, at: Moment) -> list[Vm] | None:
    """Record the boot of the host that this is, and what follows; None if it is that of before.

    During the same boot the clock may have been set, which is no time that went by.
    """
    last = rows.host_boot(db)
    rows.set_host_boot(db, boot)
    if last == boot:
        for vm in rows.every(db):
            life = lifetime.shift(vm.lifetime, at)
            if life != vm.lifetime:
                rows.set_lifetime(db, vm, life)
        return None
    if not last:
        return []
    changed = []
    for vm in rows.every(db):
        if vm.damage:
            continue
        life = lifetime.after_host_boot(vm.lifetime, at)
        due = rows.set_restarts(db, vm, restarts.after_host_boot(vm, at.wall))
        if vm.restarts.drained and due.restarts.due and vm.state in LIVE:
            # The host went down before it was stopped: no stop is under way any more.
            due = rows.set_goal(db, due, Goal.RUN)
        changed.append(rows.set_lifetime(db, due, life))
    return changed


def started(
    db: sqlite3.Connection,
    request: Request | None,
    vm_id: str,
    *,
    boot: Boot,
    reason: str,
    event: Event,
    at: Moment,
) -> Vm:
    """Record that the VM's vCPUs run (START or BOOT_AGAIN), and that `request` is done."""
    vm = rows.move(db, rows.known(db, vm_id), event, reason, at.wall)
    rows.set_firecracker_version(db, boot.version)
    if request:
        requests.finish(db, request.id)
    vm = rows.set_goal(db, rows.set_boot(db, vm, boot), Goal.RUN)
    # Pending is only what the policy starts; StartVm and the boot watchdog clear it.
    by_policy = vm.restarts.due != 0
    if not vm.lifetime.began or (event is Event.START and not by_policy):
        vm = rows.set_lifetime(db, vm, lifetime.follow(vm, Event.START, at))
    count = vm.restarts.count + by_policy
    began = replace(vm.restarts, count=count, due=0, began=vm.changed)
    return rows.set_restarts(db, vm, began)


def halted(
    db: sqlite3.Connection,
    request: Request | None,
    vm_id: str,
    *,
    event: Event,
    reason: str,
    at: Moment,
) -> Vm:
    """Record that the VM's vCPUs stand still or run again (PAUSE, RESUME)."""
    vm = rows.move(db, rows.known(db, vm_id), event, reason, at.wall)
    if request:
        requests.finish(db, request.id)
    return rows.set_lifetime(db, vm, lifetime.follow(vm, event, at))


def rested(
    db: sqlite3.Connection,
    request: Request | None,
    vm_id: str,
    *,
    event: Event,
    end: Exit,
    words: str,
    at: Moment,
) -> Vm:
    """Record that the VM has no process (STOP, EXIT, START_FAILED); see `Store.rested`."""
    vm = rows.known(db, vm_id)
    if vm.state in LIVE or event is Event.START_FAILED:
        vm = rows.set_exit(db, vm, end, at.wall)
    verdict = restarts.judge(vm, event, end, at.wall, words)
    vm = rows.move(db, vm, event, verdict.reason, at.wall)
    if verdict.gave_up:
        vm = rows.move(db, vm, Event.GAVE_UP, verdict.gave_up, at.wall)
    if request and event is Event.STOP:
        requests.finish(db, request.id)
    elif request:
        requests.forget(db, request.id)
    # What is to be deleted stays so; what the host's shutdown stopped goes on where it was.
    if vm.goal is not Goal.DELETE:
        vm = rows.set_goal(db, vm, Goal.STOP)
    if event is Event.STOP and not vm.restarts.drained:
        vm = rows.set_lifetime(db, vm, Lifetime())
    return rows.set_restarts(db, rows.set_rest(db, vm), verdict.restarts)


def use(db: sqlite3.Connection, vm_id: str, at: Moment, traffic: int) -> Vm:
    """Record that a VM was used."""
    vm = rows.known(db, vm_id)
    if not vm.lifetime.began:
        return vm
    return rows.set_lifetime(db, vm, lifetime.use(vm.lifetime, at, traffic))


def warn(db: sqlite3.Connection, vm_id: str, life: Lifetime) -> Vm:
    """Record that the end of a VM's time is near, and with it the last use that is known."""
    return rows.set_lifetime(db, rows.known(db, vm_id), replace(life, warned=True))


def expire(db: sqlite3.Connection, vm_id: str, ttl: TimeToLive) -> Vm | None:
    """Record what is wanted of a VM whose time by `ttl` has ended; None if that was changed."""
    vm = rows.known(db, vm_id)
    if vm.spec.ttl != ttl:
        return None
    if vm.goal is Goal.DELETE:
        return vm
    vm = rows.set_restarts(db, vm, replace(vm.restarts, due=0))
    return rows.set_goal(db, vm, EXPIRE_GOALS[ttl.action])


def drain(db: sqlite3.Connection, vm_id: str) -> Vm | None:
    """Record that the host's shutdown stops a VM; None where there is nothing to stop.

    What is pending by its restart policy waits for the next boot of the host, too; but not what was
    being stopped for good.
    """
    vm = rows.find(db, vm_id)
    if vm is None or vm.goal is Goal.DELETE or not (vm.state in LIVE or vm.restarts.due):
        return None
    known = vm.restarts
    drained = known.drained or vm.goal is not Goal.STOP or known.due != 0
    vm = rows.set_restarts(db, vm, replace(known, due=0, drained=drained))
    return rows.set_goal(db, vm, Goal.STOP)
