"""The port to systemd: one unit a VM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from signal import Signals

GONE = frozenset({"exited", "failed", "dead"})
"""The values of `Unit.state` in which no process of the unit is left.

Until it is stopped, systemd remembers how one ended, well (exited) or badly (failed).
"""

CLD_EXITED = 1
"""`Unit.exit_code` of a process that exited by itself (siginfo's CLD_EXITED, sigaction(2))."""


@dataclass(frozen=True)
class Unit:
    """What systemd says of nexus-vm@ID.service (org.freedesktop.systemd1(5)).

    `state` is SubState, `invocation` InvocationID in hexadecimal, `pid` MainPID, `result` Result;
    `exit_code` and `exit_status` are ExecMainCode and ExecMainStatus, the first 0 while nothing is
    known, `exit_time` is ExecMainExitTimestamp, in microseconds since the epoch.
    """

    state: str
    invocation: str = ""
    pid: int = 0
    result: str = "success"
    exit_code: int = 0
    exit_status: int = 0
    exit_time: int = 0

    @property
    def gone(self) -> bool:
        """Whether no process of the unit is left."""
        return self.state in GONE


class Units(Protocol):
    """Starts, stops and watches the units of VMs.

    Every method but `wait` raises Unavailable (SYSTEMD_UNREACHABLE) when systemd does not answer,
    and FailedPrecondition (UNIT_FAILED) when it refuses; the message is systemd's own.
    """

    async def start(self, vm_id: str) -> Unit:
        """Start the unit, which is stopped, and return it once its process exists."""

    async def stop(self, vm_id: str) -> None:
        """Make sure that no process of the unit is left, and that systemd forgets it."""

    async def kill(self, vm_id: str, number: Signals) -> None:
        """Send a signal to the unit's main process, SIGKILL to every one, and do not wait."""

    async def describe(self, vm_id: str) -> Unit:
        """Return the unit as it is."""

    async def wait(self, vm_id: str, invocation: str = "") -> Unit:
        """Return the unit once it is gone; at once if it is.

        Given an `invocation`, it is gone as well where another one has taken its place.
        """

    async def loaded(self) -> set[str]:
        """Return the ids of VMs whose unit is not stopped."""

    async def version(self) -> str:
        """Return the version of systemd."""
