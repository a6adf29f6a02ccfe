"""Calls that change something: what they ask for, and how far they got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_vmm.states import LIVE, RUNS, Event, State
from nexus_vmm.vm import Goal

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from nexus_vmm.vm import Vm


@dataclass(frozen=True)
class Request:
    """A mutating call: its `request_id` ("" for none), its name, and what it asked."""

    id: str
    method: str
    body: Message


@dataclass(frozen=True)
class Begun:
    """An operation that may go ahead, or that an earlier call with its request id did.

    `vm` is None when it was done and the VM is gone.
    """

    vm: Vm | None
    done: bool


class Elsewhere(Exception):  # it is an answer
    """The operation is about another VM than the one whose lock is held: that with `vm_id`."""

    def __init__(self, vm_id: str) -> None:
        super().__init__(vm_id)
        self.vm_id = vm_id


GOALS = {
    Event.START: Goal.RUN,
    Event.PAUSE: Goal.PAUSE,
    Event.RESUME: Goal.RUN,
    Event.STOP: Goal.STOP,
    Event.DELETE: Goal.DELETE,
}
"""What is recorded as wanted of a VM before the operation `event` touches it."""

_REACHED = {
    Event.START: LIVE,
    Event.PAUSE: {State.PAUSED},
    Event.RESUME: RUNS,
    Event.STOP: {State.STOPPED},
}


def is_held(vm: Vm) -> bool:
    """Whether a process has, or is about to have, what the spec says."""
    # The goal of a start is recorded before it begins.
    return vm.state in LIVE or vm.goal is Goal.RUN


def reached(event: Event, vm: Vm | None) -> bool:
    """Whether what the operation strives for is so already."""
    if event is Event.DELETE or vm is None:
        return vm is None
    return vm.state in _REACHED[event]
