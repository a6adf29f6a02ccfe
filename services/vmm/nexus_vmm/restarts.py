"""When a VM is started again by its policy, and when that is given up (see RestartPolicy).

Pure: from what is known of a VM and how its process ended to what comes next. Times are in
microseconds since the epoch, as the store has them. Nothing here relies on a clock that never
jumps: a jump makes at most one wait too short, or as long as the policy's longest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import Condition, Delay, Goal, Restarts

if TYPE_CHECKING:
    from nexus_vmm.vm import Exit, RestartPolicy, Vm

SECOND = 1_000_000
LONGEST_BACKOFF = 60
STABLE = 30 * SECOND
"""After which a VM has run well: the backoff begins anew."""

LOOP = 10
WINDOW = 600 * SECOND
"""`LOOP` ends within `WINDOW` are a crash loop. Even the backoff gets there in five minutes."""

_KNOWN_TO_BE_WANTED = LIVE | {State.CRASHED, State.FAILED}


@dataclass(frozen=True)
class Verdict:
    """What follows from an end.

    `reason` is that of the state after it; `gave_up` says why no start follows any more where one
    would have, otherwise "".
    """

    restarts: Restarts
    reason: str
    gave_up: str = ""


def judge(vm: Vm, event: Event, end: Exit, now: int, words: str = "") -> Verdict:
    """Return what follows from the end of a VM by `event`: STOP, EXIT or START_FAILED.

    `words` are the last lines of its console.
    """
    known = vm.restarts
    at_rest = replace(known, due=0, streak=0, ends=())
    if event is Event.STOP:
        return Verdict(at_rest, end.reason)
    if event is Event.EXIT and known.due:
        return Verdict(known, f"{end.reason}; to be started again")
    if not _applies(vm, event, end.cause):
        return Verdict(replace(known, due=0), end.reason)
    ends = (*_recent(known, now), now)
    if len(ends) >= LOOP:
        why = f"gave up: {len(ends)} ends within {WINDOW // SECOND // 60} minutes, the last: "
        said = f"; the console's last lines: {words}" if words else ""
        return Verdict(at_rest, end.reason, f"{why}{end.reason}{said}")
    stable = event is Event.EXIT and (end.time or now) - known.began >= STABLE
    streak = 0 if stable else known.streak
    wait = _wait(vm.spec.restart, streak)
    return Verdict(
        replace(known, due=now + wait * SECOND, streak=streak + 1, ends=ends),
        f"{end.reason}; to be started again in {wait} s",
    )


def nears_loop(vm: Vm, now: int) -> bool:
    """Whether one more end would be a crash loop, so that the console should be read."""
    return len(_recent(vm.restarts, now)) + 1 >= LOOP


def after_host_boot(vm: Vm, now: int) -> Restarts:
    """Return what follows for a VM from a boot of the host."""
    drained = vm.restarts.drained
    wanted = vm.state in _KNOWN_TO_BE_WANTED or vm.goal is Goal.RUN or drained
    stopping = vm.goal is Goal.STOP and vm.state in LIVE and not drained
    known = replace(vm.restarts, drained=False)
    if (
        vm.spec.restart.condition is Condition.NONE
        or vm.goal is Goal.DELETE
        or stopping
        or not wanted
    ):
        return known
    return replace(known, due=now, streak=0, ends=())


def after_update(restarts: Restarts, policy: RestartPolicy) -> Restarts:
    """Return what is left of what was pending under another policy."""
    if policy.condition in (Condition.NONE, Condition.ON_BOOT):
        return replace(restarts, due=0)
    return restarts


def seconds_left(vm: Vm, now: int) -> float:
    """Return how long to wait for what is due, at most as long as the policy ever waits."""
    longest = max(_wait(vm.spec.restart, vm.restarts.streak), LONGEST_BACKOFF)
    return min(max(0.0, (vm.restarts.due - now) / SECOND), longest)


def _applies(vm: Vm, event: Event, cause: str) -> bool:
    condition = vm.spec.restart.condition
    if event is Event.START_FAILED:
        # Of a StartVm the caller hears; only what the policy itself had due is tried again.
        return vm.restarts.due != 0 and condition is not Condition.NONE
    return condition is Condition.ALWAYS or (
        condition is Condition.ON_FAILURE and cause != "shutdown"
    )


def _recent(restarts: Restarts, now: int) -> tuple[int, ...]:
    return tuple(time for time in restarts.ends if 0 <= now - time < WINDOW)


def _wait(policy: RestartPolicy, streak: int) -> int:
    """Return the seconds to wait after `streak` ends in a row."""
    match policy.delay:
        case Delay.IMMEDIATE:
            return 0
        case Delay.FIXED:
            return policy.fixed_seconds
    # LOOP bounds a streak, but what is stored is not trusted with a power.
    return int(min(2 ** min(streak, LOOP), LONGEST_BACKOFF))
