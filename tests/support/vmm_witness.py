"""Whether what vmm answers and records is what the table of states allows.

The witness looks at the database after each transaction: so it knows in which order everything
happened, whichever calls were under way at the same time, and over kills too. Each step must be one
of the table, strived for by a goal that was recorded before, by a call that may bring it or by vmm
itself; each answer must be true of some instant between the call and the answer.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from nexus_rpc.errors import NexusError
from nexus_vmm import lifetime
from nexus_vmm.clock import moment
from nexus_vmm.records import rows
from nexus_vmm.states import LIVE, TABLE, Event, State
from nexus_vmm.vm import ExpireAction, Goal, Vm

CALL = ContextVar("the call that is under way", default=None)

STRIVES = {
    "StartVm": Event.START,
    "PauseVm": Event.PAUSE,
    "ResumeVm": Event.RESUME,
    "StopVm": Event.STOP,
    "DeleteVm": Event.DELETE,
}
_WANTS = {
    "StartVm": {Goal.RUN, Goal.STOP},
    "PauseVm": {Goal.PAUSE, Goal.RUN},
    "ResumeVm": {Goal.RUN, Goal.PAUSE},
    "StopVm": {Goal.STOP},
    "DeleteVm": {Goal.DELETE},
    "DrainVms": {Goal.STOP},
}
"""What a call may want of a VM, or want again when it failed."""
_ENDS_IN = {
    ExpireAction.STOP: Goal.STOP,
    ExpireAction.PAUSE: Goal.PAUSE,
    ExpireAction.DELETE: Goal.DELETE,
}
GUEST = {Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST}
GOAL = {
    Event.START: {Goal.RUN},
    Event.BOOT_AGAIN: {Goal.AGAIN},
    Event.START_FAILED: {Goal.RUN},
    Event.PAUSE: {Goal.PAUSE},
    Event.RESUME: {Goal.RUN},
    Event.STOP: {Goal.STOP, Goal.DELETE},
    Event.DELETE: {Goal.DELETE},
    Event.EXIT: {Goal.RUN, Goal.PAUSE, Goal.AGAIN},
}
"""What must have been wanted before a step."""

BY_ITSELF = {
    Event.START,
    Event.BOOT_AGAIN,
    Event.START_FAILED,
    Event.STOP,
    Event.PAUSE,
    Event.RESUME,
    Event.EXIT,
    Event.GAVE_UP,
    Event.DELETE,
}
"""What vmm brings about without a call, or once it carries on from a kill."""

FAILURES = {"BOOT_FAILED", "IMAGE_NOT_FOUND", "START_TIMEOUT", "SYSTEMD_UNREACHABLE"}
FAILURES |= {"UNIT_FAILED", "DISK_FULL", "DISK_UNWRITABLE", "PAUSE_REFUSED", "FIRECRACKER_SILENT"}
"""Reasons of what may go wrong though the table allows it."""


@dataclass(eq=False)
class Call:
    """A call of a client; `began` and `ended` number looks. `steps` are the events it brought."""

    method: str
    ref: str
    began: int
    request_id: str = ""
    body: tuple = ()
    boot: str = ""
    ended: int = -1
    answer: object = None
    steps: list = field(default_factory=list)

    @property
    def asks(self):
        return self.method, self.ref, self.body

    def __str__(self):
        said = f" as {self.request_id}" if self.request_id else ""
        return f"{self.method}({self.ref}{said}) -> {self.answer!r}"


class Witness:
    """All that was ever recorded. `looks` are the VMs by id, after each transaction."""

    def __init__(self, memory_mib=1 << 20):
        self.memory_mib = memory_mib
        self.looks = [{}]
        self.calls = []
        self.steps = []
        self._seen = -1
        self._rows = 0

    def copy(self):
        """Return a witness that has seen the same."""
        other = Witness(self.memory_mib)
        other.looks, other.calls, other._rows = self.looks.copy(), self.calls.copy(), self._rows
        return other

    def meets(self, host):
        """Look at another copy of the host from now on."""
        self._seen = -1
        self.look(host)

    def look(self, host):
        """Look at the database, and judge what has changed."""
        database = host.connection
        if database.total_changes == self._seen:
            return
        self._seen = database.total_changes
        before, now = self.looks[-1], {vm.id: vm for vm in rows.every(database)}
        if before == now:
            return
        chains = self._chains(database)
        self.looks.append(now)
        assert used_memory(now.values()) <= self.memory_mib, "more memory than there is"
        for vm_id in before.keys() | now.keys():
            self._judge(before.get(vm_id), now.get(vm_id), chains.get(vm_id, []), host.world)

    def _chains(self, database):
        """Return the new steps in each VM's history."""
        found = {}
        query = (
            "SELECT n, id, old, new FROM transitions JOIN vms ON seq = vm WHERE n > ? ORDER BY n"
        )
        for row in database.execute(query, (self._rows,)):
            self._rows = row["n"]
            found.setdefault(row["id"], []).append((State(row["old"]), State(row["new"])))
        return found

    def _judge(self, before, now, chain, world):
        if before is None:
            assert (now.state, now.goal) == (State.CREATED, Goal.STOP), now
            assert not chain
            return
        if now is None:
            self._brought(before, {Event.DELETE})
            assert (before.state, Event.DELETE) in TABLE, before
            assert before.id not in world.processes, f"{before} was deleted before its process"
            return
        assert (now.id, now.name, now.seq, now.cid) == (
            before.id,
            before.name,
            before.seq,
            before.cid,
        )
        if now.goal is not before.goal:
            self._judge_goal(before, now, chain)
        state = before.state
        for old, new in chain:
            assert old is state, f"{before} went from {old}"
            self._brought(
                before,
                {event for event in Event if TABLE.get((old, event)) is new},
                restart=now.boot != before.boot,
                first=old is before.state,
            )
            state = new
        assert state is now.state, f"{before} became {now} without a step in its history"
        if now.boot != before.boot:
            assert now.state is State.RUNNING
            assert world.processes.boots.get(now.boot) == now.id
            earlier = {look[now.id].boot for look in self.looks[:-1] if now.id in look}
            assert now.boot not in earlier, f"{now} has a boot of before"
        assert (now.pid != 0) == (now.state in LIVE), now
        if state is State.STOPPED and before.state in LIVE:
            assert now.id not in world.processes, f"{now} has a process"
        process = world.processes.get(now.id)
        if state is State.CRASHED and before.state in LIVE and before.goal is not Goal.AGAIN:
            assert process is None or process.boot != before.boot, f"{before} lives"

    def _judge_goal(self, before, now, chain):
        """Judge that something else is wanted of a VM: by whom?"""
        call = CALL.get()
        method = call.method if call and call.ended < 0 else ""
        if chain or now.goal in _WANTS.get(method, ()):
            return  # what follows from an end, or what was asked for
        if now.goal in (Goal.PAUSE, Goal.DELETE) or (
            before.state in LIVE and now.goal is Goal.STOP
        ):
            assert _has_expired(before), f"{before}: who wants {now.goal} of it?"
            assert now.goal is _ENDS_IN[now.spec.ttl.action]
        elif now.goal is Goal.RUN:
            known = before.restarts
            assert known.due or known.drained or before.goal is Goal.PAUSE, before

    def _brought(self, before, events, restart=False, first=True):
        """Judge a step that one of `events` brought about."""
        if restart:
            events &= {Event.START, Event.BOOT_AGAIN}
        else:
            events -= {Event.START, Event.BOOT_AGAIN}
        assert events, f"no event of the table leads on from {before}"
        if first:
            wanted = {event for event in events if before.goal in GOAL.get(event, set(Goal))}
            assert wanted, f"{before}: {events} without its goal"
            events = wanted
        call = CALL.get()
        mine = events & self._may(call) if call else set()
        assert mine or events & BY_ITSELF, f"{call}: {events} of {before}"
        self.steps.append(min(mine or events))
        if mine and call.ended < 0:
            call.steps.append(min(mine))

    def _may(self, call):
        match call.method:
            case "ReportGuest":
                return {Event(call.body[0])}
            case "StartVm":
                return {Event.START, Event.START_FAILED, Event.GAVE_UP}
            case method if method in STRIVES:
                return {STRIVES[method]}
        return set()

    def begin(self, method, ref, **known):
        """Note that a client calls."""
        call = Call(method, ref, len(self.looks) - 1, **known)
        self.calls.append(call)
        return call

    def answered(self, call, answer):
        """Note what vmm answered, and judge it."""
        call.answer = answer
        call.ended = len(self.looks) - 1
        if isinstance(answer, NexusError):
            self._judge_refusal(call, answer)
        elif isinstance(answer, Vm):
            self._judge_success(call, answer)

    def _judge_success(self, call, vm):
        then = [look[vm.id] for look in self.looks[call.began :] if vm.id in look]
        if call.method == "TouchVm":  # the last use is told before it is recorded
            then = [replace(known, lifetime=vm.lifetime) for known in then]
        assert vm in then, f"{call}: it was never so"
        event = STRIVES.get(call.method)
        if event is None:
            return
        if not call.request_id:
            assert call.steps == [event], f"{call} brought {call.steps}"
        assert set(call.steps) <= {event}, f"{call} brought {call.steps}"

    def _judge_refusal(self, call, error):
        instants = self.looks[call.began : call.ended + 1]
        known = [find(look, call.ref) for look in instants]
        reason = error.reason
        if reason == "VM_NOT_FOUND":
            # A repeat is about the VM of the first call, which may be gone while its name is not.
            assert None in known or call.request_id, f"{call}: it was there all along"
        elif reason == "VM_STATE":
            assert any(vm and self._refuses(call, vm) for vm in known), f"{call}: {known}"
        elif reason == "STALE_BOOT":
            late = [vm and (vm.boot != call.boot or vm.goal is Goal.AGAIN) for vm in known]
            assert any(late), call
        elif reason == "NAME_TAKEN":
            assert any(find(look, call.ref) for look in instants), call
        elif reason == "VM_ID_TAKEN":
            assert any(call.body[0] in look for look in instants), call
        elif reason == "REQUEST_ID_REUSED":
            same = [other for other in self.calls if other.request_id == call.request_id]
            assert any(other.asks != call.asks for other in same), call
        elif reason == "FIELD_FIXED":
            shrinks = any(vm and _shrinks(call, vm) for vm in known)
            assert "image" in call.body or shrinks, call
        elif reason == "NO_CAPACITY":
            assert any(self._is_short(call, look, error.metadata) for look in instants), call
        elif reason == "STOPPING":
            assert any(other.method == "DrainVms" for other in self.calls), call
        elif reason == "ETAG_MISMATCH":
            assert any(vm and f"{vm.seq}-{vm.revision}" != call.body[0] for vm in known), call
        else:
            assert reason in FAILURES, f"{call}: nobody documents that"
        if reason not in FAILURES:
            assert not call.steps, f"{call} was refused, and brought {call.steps}"
        elif call.method != "StartVm":
            # A failed start ends in FAILED; of all others a failure leaves things as they were.
            assert not call.steps, f"{call} failed, and brought {call.steps}"

    def _is_short(self, call, look, told):
        """Whether there was no room for what was asked, as it is told."""
        vm = find(look, call.ref)
        used = used_memory(one for one in look.values() if one is not vm)
        free = max(0, self.memory_mib - used)
        asked = vm.spec.memory_mib if vm else 0
        figures = {"what": "memory_mib", "asked": str(asked), "free": str(free)}
        return asked > free and told | figures == told

    def _refuses(self, call, vm):
        event = STRIVES.get(call.method)
        if call.method == "ReportGuest":
            return (vm.state, Event(call.body[0])) not in TABLE
        if call.method == "UpdateVm":
            return vm.state in LIVE or vm.goal is Goal.RUN
        if event is not Event.DELETE and vm.goal is Goal.DELETE:
            return True
        return (vm.state, event) not in TABLE


def find(look, ref):
    """Return the VM with an id or name."""
    return look.get(ref) or next((vm for vm in look.values() if vm.name == ref), None)


def _shrinks(call, vm):
    wanted = dict(one for one in call.body if isinstance(one, tuple))
    return "disk_mib" in call.body and wanted["disk_mib"] < vm.spec.disk_mib


def used_memory(vms):
    """Return how much memory the VMs that are live or being started have, in MiB."""
    return sum(vm.spec.memory_mib for vm in vms if vm.state in LIVE or vm.goal is Goal.RUN)


def ended_at(vm):
    """Return when a VM's time to live ended, in microseconds by the clock as it is; 0: it did not.

    As far as it is recorded: what is known in memory alone may be a later use.
    """
    at = moment()
    ends = lifetime.ends_at(replace(vm, lifetime=lifetime.shift(vm.lifetime, at)))
    return ends if ends <= at.wall else 0


def _has_expired(vm):
    """Whether so much time has gone by, whatever the clock was set to meanwhile."""
    ttl, life, at = vm.spec.ttl, vm.lifetime, moment()
    since_boot = at.wall - at.offset
    ends = [(life.began, ttl.max_seconds), (life.used, ttl.idle_seconds)]
    gone = [since_boot - (since - life.offset) - 1e6 * whole for since, whole in ends if whole]
    return bool(life.began) and max(gone, default=-2e6) > -1e6
