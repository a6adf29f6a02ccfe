"""The table of states: every pair of state and event is either in it or refused."""

from itertools import product

import pytest

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc import vms
from nexus_rpc.errors import FailedPrecondition
from nexus_vmm.states import BOOTING, LIVE, TABLE, Event, State, after

RESTING = {State.CREATED, State.STOPPED, State.CRASHED, State.FAILED}
GUEST = {Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST}


def test_each_state_is_live_or_resting_or_gone():
    assert RESTING | LIVE | {State.DELETED} == set(State)
    assert not RESTING & LIVE


def test_clients_take_the_same_states_for_live():
    assert {vmm_pb2.VmState.Value(f"VM_STATE_{state.name}") for state in LIVE} == vms.LIVE


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_only_what_is_in_the_table_is_allowed(state, event):
    if (state, event) in TABLE:
        assert after(state, event, "hello") is TABLE[state, event]
        return
    with pytest.raises(FailedPrecondition, match=f"'hello' is {state}") as caught:
        after(state, event, "hello")
    assert caught.value.reason == "VM_STATE"
    assert caught.value.metadata == {"vm": "hello", "state": state}


@pytest.mark.parametrize("state", State)
def test_what_rests_starts_and_is_deleted_and_what_lives_stops(state):
    allowed = {event for event in Event if (state, event) in TABLE}
    if state in RESTING:
        ended = state in {State.CRASHED, State.FAILED}
        by_policy = {Event.STOP, Event.GAVE_UP} if ended else set()
        assert allowed == {Event.START, Event.START_FAILED, Event.DELETE} | by_policy
    elif state in LIVE:
        again = {Event.BOOT_AGAIN} if state in BOOTING else set()
        halt = {Event.RESUME} if state is State.PAUSED else {Event.PAUSE}
        assert allowed - GUEST == {Event.STOP, Event.EXIT} | again | halt
        assert Event.LOST in allowed
    else:
        assert not allowed


@pytest.mark.parametrize(("state", "event"), sorted(product(LIVE, GUEST)))
def test_a_guest_never_leaves_the_live_states(state, event):
    assert TABLE.get((state, event), state) in LIVE


def test_the_way_of_a_guest():
    state = State.RUNNING
    for event in (Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST, Event.HELLO):
        state = after(state, event, "hello")
    assert state is State.ONLINE


def test_a_paused_guest_says_nothing_and_is_heard_anew_once_it_runs():
    assert {TABLE[State.PAUSED, event] for event in GUEST} == {State.PAUSED}
    assert after(State.PAUSED, Event.RESUME, "hello") is State.RUNNING
