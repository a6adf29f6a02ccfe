"""When times to live end: the pure part, by clocks that jump."""

import pytest
import vmm_guest
from hypothesis import given
from hypothesis import strategies as st

from nexus_vmm import lifetime
from nexus_vmm.clock import Moment, moment
from nexus_vmm.lifetime import Due, Plan
from nexus_vmm.states import LIVE, RUNS, Event, State
from nexus_vmm.vm import ExpireAction, Lifetime, TimeToLive

SECOND = 1_000_000
BOOT = 1_000 * SECOND
START = 5_000 * SECOND


def at(seconds, jump=0):
    """Return the moment so many seconds after the start, by a clock set forward by `jump`."""
    return Moment(START + (seconds + jump) * SECOND, BOOT + jump * SECOND)


def living(state=State.READY, spec=None, used=0, **ttl):
    life = Lifetime(began=START, used=START + used * SECOND, offset=BOOT)
    spec = vmm_guest.spec(ttl=TimeToLive(**ttl), **(spec or {}))
    return vmm_guest.vm(state=state, spec=spec, lifetime=life, pid=7 * (state in LIVE))


def test_without_a_time_to_live_nothing_is_planned():
    assert lifetime.plan(living(), at(10**9)) == Plan(Due.NOTHING, None)
    assert lifetime.ends_at(living()) == 0


@pytest.mark.parametrize(
    ("seconds", "plan"),
    [
        (0, Plan(Due.NOTHING, 3540)),
        (3000, Plan(Due.NOTHING, 540)),
        (3540, Plan(Due.WARNING, None)),
        (3600, Plan(Due.END, None)),
        (10**6, Plan(Due.END, None)),
    ],
)
def test_a_minute_before_the_end_it_is_told(seconds, plan):
    vm = living(max_seconds=3600)
    assert lifetime.plan(vm, at(seconds)) == plan
    assert lifetime.ends_at(vm) == START + 3600 * SECOND


def test_of_a_short_time_the_last_tenth_is_told():
    vm = living(max_seconds=100)
    assert lifetime.plan(vm, at(0)) == Plan(Due.NOTHING, 90)
    assert lifetime.plan(vm, at(90)).due is Due.WARNING


def test_after_the_warning_only_the_end_is_left():
    vm = living(max_seconds=100)
    warned = vmm_guest.vm(
        state=vm.state, spec=vm.spec, lifetime=lifetime.replace(vm.lifetime, warned=True)
    )
    assert lifetime.plan(warned, at(95)) == Plan(Due.NOTHING, 5)


def test_the_first_of_both_times_counts():
    vm = living(max_seconds=3600, idle_seconds=600, used=100)
    assert lifetime.ends_at(vm) == START + 700 * SECOND
    assert lifetime.plan(vm, at(700)).due is Due.END
    assert lifetime.reason(vm, at(700)) == "as it was not used for 600 s"
    assert lifetime.reason(vm, at(3600)) == "as its time to live of 3600 s ended"


def test_the_idle_time_of_a_paused_vm_does_not_count():
    vm = living(State.PAUSED, max_seconds=3600, idle_seconds=600)
    assert lifetime.ends_at(vm) == START + 3600 * SECOND
    assert lifetime.ends_at(living(State.PAUSED, idle_seconds=600)) == 0


@pytest.mark.parametrize("action", ExpireAction)
@pytest.mark.parametrize("state", State)
def test_in_which_states_it_counts(state, action):
    counts = state in LIVE or state in {State.CRASHED, State.FAILED}
    if action is ExpireAction.PAUSE:
        counts = state in RUNS
    vm = living(state, max_seconds=60, action=action)
    assert (lifetime.ends_at(vm) != 0) == counts


def test_traffic_is_looked_at_four_times_in_an_idle_time():
    vm = living(spec={"network": vmm_guest.NETWORK}, idle_seconds=600)
    assert lifetime.watches_traffic(vm)
    assert lifetime.plan(vm, at(0)) == Plan(Due.NOTHING, 150)
    for other in (
        living(idle_seconds=600),
        living(spec={"network": vmm_guest.NETWORK}, max_seconds=600),
        living(State.PAUSED, spec={"network": vmm_guest.NETWORK}, idle_seconds=600),
    ):
        assert not lifetime.watches_traffic(other)


def test_a_use_begins_the_idle_time_anew_and_takes_the_warning_back():
    life = Lifetime(START, START, traffic=3, warned=True, offset=BOOT)
    used = lifetime.use(life, at(50), 8)
    assert used == Lifetime(START, START + 50 * SECOND, traffic=8, offset=BOOT)
    assert lifetime.use(life, at(50)).traffic == 3


@pytest.mark.parametrize(("seconds", "worth"), [(0, False), (149, False), (150, True)])
def test_a_use_is_stored_when_a_quarter_has_passed(seconds, worth):
    assert lifetime.is_worth_storing(living(idle_seconds=600), at(seconds)) is worth


def test_a_start_and_a_resumption_begin_it_and_a_stop_ends_it():
    vm = living(max_seconds=60)
    for event in (Event.START, Event.RESUME):
        begun = lifetime.follow(vm, event, at(40))
        assert (begun.began, begun.used, begun.warned) == (START + 40 * SECOND,) * 2 + (False,)
    assert lifetime.follow(vm, Event.PAUSE, at(40)) == vm.lifetime
    assert lifetime.follow(vm, Event.STOP, at(40)) == Lifetime()


@given(jump=st.integers(-(10**9), 10**9), gone=st.integers(0, 99))
def test_a_clock_that_is_set_ends_nothing_and_makes_nothing_live_longer(jump, gone):
    vm = living(max_seconds=100)
    moved = lifetime.replace(vm, lifetime=lifetime.shift(vm.lifetime, at(gone, jump)))
    assert lifetime.plan(moved, at(gone, jump)) == lifetime.plan(vm, at(gone))


@pytest.mark.parametrize(
    ("used", "back", "known"),
    [
        (0, 100, 100),  # within the quarter that a use is not stored for
        (0, 200, 150),
        (0, 5000, 4410),  # the gateway gets 10 seconds
        (300, 100, 300),  # used since
    ],
)
@pytest.mark.parametrize("jump", [0, -(10**6), 10**6])
def test_uses_that_a_vmm_cannot_know_of_are_allowed_for(used, back, known, jump):
    ttl = TimeToLive(idle_seconds=600)
    life = lifetime.shift(living(used=used, idle_seconds=600).lifetime, at(used, jump))
    told = lifetime.after_return(life, ttl, at(back), at(used, jump))
    assert told.used == START + (known + jump) * SECOND
    assert lifetime.after_return(life, TimeToLive(60), at(back), at(used, jump)) == life


def test_a_clock_that_is_only_adjusted_is_not_told_from_one_that_is_not():
    life = Lifetime(START, START, offset=BOOT)
    assert lifetime.shift(life, Moment(START + SECOND // 2, BOOT + SECOND // 2)) is life


@given(jump=st.integers(-(10**9), 10**9))
def test_of_another_boot_the_clock_is_believed_but_nothing_lives_longer_than_whole(jump):
    vm = living(max_seconds=100)
    now = Moment(START + jump * SECOND, 1)
    vm = lifetime.replace(vm, lifetime=lifetime.after_host_boot(vm.lifetime, now))
    plan = lifetime.plan(vm, now)
    assert plan.due is (Due.END if jump >= 100 else Due.WARNING if jump >= 90 else Due.NOTHING)
    assert plan.again is None or plan.again <= 100


def test_the_clock_tells_the_time_since_the_boot_too():
    first, second = moment(), moment()
    assert 0 < first.wall <= second.wall
    assert abs(first.offset - second.offset) < SECOND
