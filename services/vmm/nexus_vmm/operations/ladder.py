"""Ending a machine: a ladder of rungs, each less kind than the one before, and one deadline.

Each rung has a share of the deadline. It is climbed when the process has not ended within the
shares of those before it, which is noticed as an event; nothing is polled.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_vmm.states import State
from nexus_vmm.vm import Exit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexus_vmm.driver import Driver
    from nexus_vmm.vm import Vm

HEARD = frozenset({State.ONLINE, State.PROVISIONING, State.READY})
"""The states in which the guest's agent was heard in this boot, and can be asked."""

_LAST_SECONDS = 5.0
"""For which the end of a process that got SIGKILL is awaited, to know how it ended."""

_log = logging.getLogger(__name__)


class Rung(StrEnum):
    """What a process may need to end, in this order."""

    NONE = "none"
    AGENT = "agent"
    KEYS = "ctrl-alt-del"
    TERMINATE = "sigterm"
    KILL = "sigkill"


RUNGS: dict[Rung, tuple[float, str]] = {
    Rung.NONE: (0, "its process had ended already"),
    # The gateway, which sees `Vm.stopping`, asks the agent: nothing is done here but waiting.
    Rung.AGENT: (0.5, "its agent shut it down"),
    Rung.KEYS: (0.4, "it shut down on Ctrl-Alt-Del"),
    # Firecracker needs a moment for that; the guest's caches are lost.
    Rung.TERMINATE: (0.1, "it did not shut down, and was ended by SIGTERM"),
    Rung.KILL: (0, "it was killed"),
}
"""Of each rung its share of the deadline, and what is told where it was the one that helped."""


@dataclass(frozen=True)
class Descent:
    """The rung that helped, and how the process ended; with NONE that nobody here had a part in."""

    rung: Rung
    end: Exit


def rungs(vm: Vm, grace: float) -> tuple[list[Rung], float]:
    """Return the rungs for a live VM, and seconds for a whole share, out of `grace` seconds."""
    if not grace:
        return [Rung.KILL], 0
    steps = [Rung.KEYS, Rung.TERMINATE, Rung.KILL]
    if vm.state in HEARD:
        steps.insert(0, Rung.AGENT)
    return steps, grace / sum(RUNGS[rung][0] for rung in steps)


async def descend(driver: Driver, vm: Vm, grace: float) -> Descent:
    """End the process of a live VM within `grace` seconds; `Driver.kill` is still to follow.

    A paused VM is resumed for that, unless the grace is 0. Raises Unavailable
    (SYSTEMD_UNREACHABLE): then the process may live.
    """
    steps, share = rungs(vm, grace)
    now = await driver.describe(vm.id)
    if isinstance(now, Exit):
        # Watchers know of the stop already: an agent may have been quicker than this.
        by_agent = steps[0] is Rung.AGENT and now.cause == "shutdown"
        return Descent(Rung.AGENT if by_agent else Rung.NONE, now)
    async with _ending(driver, vm.id) as ending:
        for rung in steps:
            reached = await _climb(driver, vm, rung)
            seconds = _LAST_SECONDS if rung is Rung.KILL else RUNGS[rung][0] * share
            if reached:
                await asyncio.wait({ending}, timeout=seconds)
            if ending.done():
                return Descent(rung, ending.result())
    # The caller's kill finds out whether it lives on, and says so.
    return Descent(Rung.KILL, Exit("signal", "it got SIGKILL", signal=SIGKILL))


async def _climb(driver: Driver, vm: Vm, rung: Rung) -> bool:
    """Do what the rung is about. Returns whether it is worth waiting for."""
    try:
        match rung:
            case Rung.KEYS:
                if vm.state is State.PAUSED:
                    await driver.resume(vm.id)
                await driver.ask(vm.id)
            case Rung.TERMINATE:
                await driver.signal(vm.id, SIGTERM)
            case Rung.KILL:
                await driver.signal(vm.id, SIGKILL)
    except (FailedPrecondition, Unavailable) as error:  # of `resume` and `ask`
        if rung is not Rung.KEYS:
            raise
        _log.warning("VM %s cannot be asked to shut down: %s", vm.id, error)
        return False
    return True


@asynccontextmanager
async def _ending(driver: Driver, vm_id: str) -> AsyncIterator[asyncio.Task[Exit]]:
    task = asyncio.create_task(driver.wait(vm_id))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
