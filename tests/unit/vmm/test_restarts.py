"""The rules of restart policies: what follows from each end, to the second."""

from dataclasses import replace

import pytest
import vmm_guest

from nexus_vmm.restarts import (
    LOOP,
    SECOND,
    WINDOW,
    after_host_boot,
    after_update,
    judge,
    nears_loop,
    seconds_left,
)
from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import Condition, Delay, Exit, Goal, RestartPolicy, Restarts

KILLED = Exit("signal", "Firecracker was ended by SIGKILL")
SHUT_DOWN = Exit("shutdown", "the guest shut down")
NOT_STARTED = Exit("start", "no kernel")
NOW = 1_800_000_000 * SECOND


def running(condition=Condition.ALWAYS, delay=Delay.BACKOFF, seconds=0, **restarts):
    spec = vmm_guest.spec(restart=RestartPolicy(condition, delay, seconds))
    return vmm_guest.vm(
        spec=spec, state=State.RUNNING, goal=Goal.RUN, restarts=Restarts(**restarts)
    )


@pytest.mark.parametrize(
    ("condition", "starts_after"),
    [
        (Condition.NONE, set()),
        (Condition.ON_BOOT, set()),
        (Condition.ALWAYS, {"signal", "error", "oom", "unknown", "start", "shutdown"}),
        (Condition.ON_FAILURE, {"signal", "error", "oom", "unknown", "start"}),
    ],
)
def test_each_condition_answers_its_ends(condition, starts_after):
    causes = {"signal", "error", "oom", "unknown", "start", "shutdown"}
    answered = {
        cause
        for cause in causes
        if judge(running(condition), Event.EXIT, Exit(cause, ""), NOW).restarts.due
    }
    assert answered == starts_after


@pytest.mark.parametrize("condition", Condition)
def test_a_deliberate_stop_is_never_answered(condition):
    vm = running(condition, count=3, due=NOW, streak=2, ends=(NOW,))
    verdict = judge(vm, Event.STOP, Exit("stop", "stopped as asked"), NOW)
    assert verdict.restarts == Restarts(count=3)
    assert (verdict.reason, verdict.gave_up) == ("stopped as asked", "")


def waits(vm, ran=1, times=9):
    """Return the seconds that are waited after each of some ends, `ran` seconds after a start."""
    now, found = NOW, []
    for _ in range(times):
        vm = replace(vm, restarts=replace(vm.restarts, began=now, due=0))
        now += ran * SECOND
        restarts = judge(vm, Event.EXIT, KILLED, now).restarts
        found.append((restarts.due - now) // SECOND)
        now = restarts.due
        vm = replace(vm, restarts=restarts)
    return found


def test_backoff_doubles_to_a_minute():
    assert waits(running()) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_how_long_vmm_was_away_is_not_taken_for_time_that_the_vm_ran():
    vm = running(began=NOW, streak=4)
    end = replace(KILLED, time=NOW + SECOND)
    noticed = NOW + 3600 * SECOND
    restarts = judge(vm, Event.EXIT, end, noticed).restarts
    assert (restarts.streak, restarts.due) == (5, noticed + 16 * SECOND)


def test_backoff_begins_anew_after_thirty_stable_seconds():
    assert waits(running(), ran=29, times=3) == [1, 2, 4]
    assert waits(running(), ran=30, times=3) == [1, 1, 1]


def test_other_delays():
    assert waits(running(delay=Delay.IMMEDIATE), times=3) == [0, 0, 0]
    assert waits(running(delay=Delay.FIXED, seconds=5), times=3) == [5, 5, 5]


def test_the_reason_says_when():
    verdict = judge(running(delay=Delay.FIXED, seconds=5), Event.EXIT, KILLED, NOW)
    assert verdict.reason == f"{KILLED.reason}; to be started again in 5 s"


@pytest.mark.parametrize("condition", [Condition.ON_BOOT, Condition.ALWAYS, Condition.ON_FAILURE])
def test_a_start_by_the_policy_that_fails_is_tried_again(condition):
    vm = running(condition, due=NOW, streak=1)
    assert judge(vm, Event.START_FAILED, NOT_STARTED, NOW).restarts.due == NOW + 2 * SECOND


@pytest.mark.parametrize("condition", Condition)
def test_a_start_by_a_caller_that_fails_is_not(condition):
    verdict = judge(running(condition), Event.START_FAILED, NOT_STARTED, NOW)
    assert (verdict.restarts.due, verdict.reason) == (0, "no kernel")


@pytest.mark.parametrize("event", [Event.EXIT, Event.START_FAILED])
def test_the_tenth_end_within_ten_minutes_is_the_last(event):
    ends = tuple(NOW - step * SECOND for step in range(LOOP - 1, 0, -1))
    vm = running(due=NOW if event is Event.START_FAILED else 0, count=9, ends=ends)
    assert nears_loop(vm, NOW)
    verdict = judge(vm, event, KILLED, NOW, "panic | out of paper")
    assert verdict.restarts == Restarts(count=9)
    assert verdict.reason == KILLED.reason
    assert "gave up: 10 ends within 10 minutes" in verdict.gave_up
    assert KILLED.reason in verdict.gave_up
    assert verdict.gave_up.endswith("the console's last lines: panic | out of paper")


def test_ends_that_are_long_ago_are_no_loop():
    ends = tuple(NOW - WINDOW - step for step in range(LOOP - 1))
    vm = running(ends=ends)
    assert not nears_loop(vm, NOW)
    verdict = judge(vm, Event.EXIT, KILLED, NOW)
    assert verdict.restarts.ends == (NOW,)
    assert not verdict.gave_up


def test_even_the_backoff_reaches_the_loop_and_a_slow_fixed_delay_never_does():
    assert sum(waits(running(), times=LOOP - 1)) < WINDOW // SECOND
    vm, now = running(delay=Delay.FIXED, seconds=70), NOW
    for _ in range(3 * LOOP):
        vm = replace(vm, restarts=replace(vm.restarts, due=0))
        verdict = judge(vm, Event.EXIT, KILLED, now)
        assert not verdict.gave_up
        vm, now = replace(vm, restarts=verdict.restarts), verdict.restarts.due


@pytest.mark.parametrize("condition", Condition)
@pytest.mark.parametrize("state", [state for state in State if state is not State.DELETED])
def test_a_boot_of_the_host_starts_what_was_started_and_not_stopped(condition, state):
    goal = Goal.RUN if state in LIVE else Goal.STOP
    vm = replace(running(condition), state=state, goal=goal)
    wanted = state in LIVE | {State.CRASHED, State.FAILED} and condition is not Condition.NONE
    assert bool(after_host_boot(vm, NOW).due) == wanted


def test_a_boot_of_the_host_does_not_undo_a_stop_or_a_deletion_that_was_under_way():
    assert not after_host_boot(replace(running(), goal=Goal.STOP), NOW).due
    assert not after_host_boot(replace(running(), goal=Goal.DELETE, state=State.CRASHED), NOW).due
    starting = replace(running(), goal=Goal.RUN, state=State.STOPPED)
    assert after_host_boot(starting, NOW).due == NOW


def test_the_end_that_a_boot_of_the_host_brought_keeps_what_is_due():
    vm = running(Condition.ON_BOOT, due=NOW)
    verdict = judge(vm, Event.EXIT, Exit("unknown", "gone"), NOW + SECOND)
    assert verdict.restarts == vm.restarts


def test_what_is_pending_survives_a_change_of_policy_that_would_have_it_too():
    pending = Restarts(count=1, due=NOW)
    for condition in Condition:
        kept = condition in {Condition.ALWAYS, Condition.ON_FAILURE}
        assert after_update(pending, RestartPolicy(condition)) == replace(
            pending, due=NOW if kept else 0
        )


@pytest.mark.parametrize(
    ("delay", "seconds", "ahead", "left"),
    [
        (Delay.BACKOFF, 0, 4, 4),
        (Delay.BACKOFF, 0, -100, 0),
        (Delay.BACKOFF, 0, 10**6, 60),
        (Delay.FIXED, 3600, 10**6, 3600),
        (Delay.IMMEDIATE, 0, 0, 0),
    ],
)
def test_a_clock_that_jumps_makes_no_wait_longer_than_the_policys(delay, seconds, ahead, left):
    vm = running(delay=delay, seconds=seconds, due=NOW + ahead * SECOND)
    assert seconds_left(vm, NOW) == left
