"""The states of a VM and the one table of what leads from each to which.

API, reconciler and documentation use this table and nothing else, so that no layer allows what
another refuses.
"""

from __future__ import annotations

from enum import StrEnum

from nexus_rpc.errors import FailedPrecondition


class State(StrEnum):
    """Where a VM is in its life. `DELETED` is never stored: the VM is gone."""

    CREATED = "created"
    RUNNING = "running"
    ONLINE = "online"
    PROVISIONING = "provisioning"
    READY = "ready"
    UNREACHABLE = "unreachable"
    PAUSED = "paused"
    STOPPED = "stopped"
    CRASHED = "crashed"
    FAILED = "failed"
    DELETED = "deleted"


class Event(StrEnum):
    """What happens to a VM. HELLO to LOST are what the agent-gateway hears of the guest."""

    START = "start"
    BOOT_AGAIN = "boot again"
    START_FAILED = "start failed"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    EXIT = "exit"
    GAVE_UP = "gave up"
    DELETE = "delete"
    HELLO = "hello"
    PROVISIONING = "provisioning"
    READY = "ready"
    LOST = "lost"


RUNS = frozenset({State.RUNNING, State.ONLINE, State.PROVISIONING, State.READY, State.UNREACHABLE})
"""The states in which vCPUs run."""

LIVE = RUNS | {State.PAUSED}
"""The states in which a process exists."""

BOOTING = frozenset({State.RUNNING, State.ONLINE, State.PROVISIONING})
"""The live states on the way to READY: of a boot, or of a guest that was lost and came back."""

_GUEST = (Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST)
_RESTING = (State.CREATED, State.STOPPED, State.CRASHED, State.FAILED)

TABLE: dict[tuple[State, Event], State] = {
    **{(state, Event.START): State.RUNNING for state in _RESTING},
    # By the boot watchdog, once: see `Supervisor`.
    **{(state, Event.BOOT_AGAIN): State.RUNNING for state in BOOTING},
    **{(state, Event.START_FAILED): State.FAILED for state in _RESTING},
    **{(state, Event.DELETE): State.DELETED for state in _RESTING},
    **{(state, Event.STOP): State.STOPPED for state in LIVE},
    # Nothing is left to stop, but it stays so, whatever the restart policy has pending.
    **{(state, Event.STOP): State.STOPPED for state in (State.CRASHED, State.FAILED)},
    # By the restart policy, which starts a VM in a crash loop no more.
    **{(state, Event.GAVE_UP): State.FAILED for state in (State.CRASHED, State.FAILED)},
    # A process that ended though nobody had asked for it.
    **{(state, Event.EXIT): State.CRASHED for state in LIVE},
    **{(state, Event.LOST): State.UNREACHABLE for state in RUNS},
    **{(state, Event.PAUSE): State.PAUSED for state in RUNS},
    # As after a boot: the guest has to be heard again.
    (State.PAUSED, Event.RESUME): State.RUNNING,
    # What the gateway had on its way says nothing any more.
    **{(State.PAUSED, event): State.PAUSED for event in _GUEST},
    (State.RUNNING, Event.HELLO): State.ONLINE,
    (State.UNREACHABLE, Event.HELLO): State.ONLINE,
    (State.ONLINE, Event.PROVISIONING): State.PROVISIONING,
    (State.PROVISIONING, Event.READY): State.READY,
    # Repeats, as after a restart of the gateway, bring no change.
    **{(state, Event.HELLO): state for state in (State.ONLINE, State.PROVISIONING, State.READY)},
    **{(state, Event.PROVISIONING): state for state in (State.PROVISIONING, State.READY)},
    (State.READY, Event.READY): State.READY,
}

_WAY_OUT = {
    Event.START: "it is live already",
    Event.PAUSE: "only vCPUs that run can be paused",
    Event.RESUME: "it is not paused",
    Event.STOP: "there is nothing to stop",
    Event.DELETE: "stop it first",
    Event.PROVISIONING: "the agent's hello must be reported first",
    Event.READY: "the agent's hello and the setting up must be reported first",
}


def after(state: State, event: Event, name: str) -> State:
    """Return the state that `event` leads to for the VM called `name`.

    Raises FailedPrecondition (VM_STATE) where the table has no such step.
    """
    following = TABLE.get((state, event))
    if following is None:
        way_out = _WAY_OUT.get(event, "the VM is not live")
        raise FailedPrecondition(
            "VM_STATE", f"VM {name!r} is {state}: no {event} ({way_out})", vm=name, state=state
        )
    return following
