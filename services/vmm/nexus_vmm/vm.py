"""What is known of a VM."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexus_vmm.states import State


class Condition(StrEnum):
    """When vmm starts a VM by itself (see RestartCondition in vmm.proto)."""

    NONE = "none"
    ON_BOOT = "on-boot"
    ALWAYS = "always"
    ON_FAILURE = "on-failure"


class Delay(StrEnum):
    """How long vmm waits before it does (see RestartDelay in vmm.proto)."""

    BACKOFF = "backoff"
    IMMEDIATE = "immediate"
    FIXED = "fixed"


class Goal(StrEnum):
    """What was last asked for: where a restart of vmm carries on from."""

    RUN = "run"
    AGAIN = "boot again"
    PAUSE = "pause"
    STOP = "stop"
    DELETE = "delete"


@dataclass(frozen=True)
class Network:
    """The VM's end of a port of netd; addresses in text, `ipv4` and `ipv6` with their prefix.

    Without IPv6 `ipv6` and `ipv6_gateway` are ""; `mtu` 0 is the guest's own. The defaults are
    those of rows that an earlier release wrote.
    """

    tap: str
    mac: str
    ipv4: str
    gateway: str
    dns: tuple[str, ...]
    ipv6: str = ""
    ipv6_gateway: str = ""
    search: tuple[str, ...] = ()
    mtu: int = 0


@dataclass(frozen=True)
class RestartPolicy:
    """When vmm starts a VM by itself, and how soon; `fixed_seconds` is 0 unless it is FIXED."""

    condition: Condition = Condition.NONE
    delay: Delay = Delay.BACKOFF
    fixed_seconds: int = 0


class ExpireAction(StrEnum):
    """What happens to a VM whose time is over (see ExpireAction in vmm.proto)."""

    STOP = "stop"
    PAUSE = "pause"
    DELETE = "delete"


@dataclass(frozen=True)
class TimeToLive:
    """How long a VM may live, in seconds; 0: no end."""

    max_seconds: int = 0
    idle_seconds: int = 0
    action: ExpireAction = ExpireAction.STOP


@dataclass(frozen=True)
class Spec:
    """What was asked for, checked and with defaults filled in.

    The defaults given here are those of rows that an earlier release wrote. `tags` are sorted by
    key.
    """

    vcpu_count: int
    memory_mib: int
    image: str
    kernel: str
    disk_mib: int
    network: Network | None
    balloon: bool
    restart: RestartPolicy = RestartPolicy()
    tags: tuple[tuple[str, str], ...] = ()
    ttl: TimeToLive = TimeToLive()
    serial_input: bool = False


@dataclass(frozen=True)
class Lifetime:
    """How far the time to live of a VM has got. Times in microseconds since the epoch, 0 for none.

    `began`: when the absolute time began. `used`: the last use. `traffic`: packets that its TAP had
    carried then. `warned`: watchers were told that the end is near. `offset`: from the boot of the
    host to the epoch, by the clock that these were taken from (see `clock`).
    """

    began: int = 0
    used: int = 0
    traffic: int = 0
    warned: bool = False
    offset: int = 0


@dataclass(frozen=True)
class Restarts:
    """How far the restart policy of a VM has got. Times in microseconds since the epoch.

    `count`: starts by the policy since the last StartVm. `due`: when the next one is, 0 for none.
    `began`: when the last process began. `streak`: ends in a row of a VM that had not run well.
    `ends`: the last ends that the policy answered. `drained`: the host's shutdown stopped it, and
    the next boot of the host goes on as if it had not.
    """

    count: int = 0
    due: int = 0
    began: int = 0
    streak: int = 0
    ends: tuple[int, ...] = ()
    drained: bool = False


@dataclass(frozen=True)
class Transition:
    """One change of state; `time` in microseconds since the epoch."""

    old: State
    new: State
    reason: str
    time: int


@dataclass(frozen=True)
class Vm:
    """One microVM. Times in microseconds since the epoch.

    `seq` counts creations and orders lists. `boot` is the systemd invocation id of the last
    start, `pid` Firecracker's process id while the VM is live, otherwise 0. `revision` counts
    changes of the spec. `change` is the revision, in the log of all VMs, of its last change.
    `damage` says what is to be done about a record that cannot be read, of which only the id, the
    name and the times are known; otherwise it is "".
    """

    seq: int
    id: str
    name: str
    spec: Spec
    state: State
    reason: str
    created: int
    changed: int
    goal: Goal
    boot: str
    pid: int
    cid: int
    restarts: Restarts
    revision: int
    lifetime: Lifetime = Lifetime()
    last_exit: Exit | None = None
    change: int = field(default=0, compare=False)
    damage: str = ""

    @property
    def stopping(self) -> bool:
        """Whether there is a process that is to end."""
        return self.pid != 0 and self.goal in (Goal.STOP, Goal.DELETE)


@dataclass(frozen=True)
class Boot:
    """A machine whose vCPUs run: its invocation id, process id and Firecracker's version."""

    boot: str
    pid: int
    version: str


@dataclass(frozen=True)
class Exit:
    """How a machine's process ended: `cause` is one word for metrics, `reason` for people.

    `code` is Firecracker's exit code, `signal` the number of what ended it; -1 and 0 where there
    was none. `time` is when that was, in microseconds since the epoch; 0 where nobody knows, until
    it is stored: then when it was noticed.
    """

    cause: str
    reason: str
    code: int = -1
    signal: int = 0
    time: int = 0


TAKEN = Exit("unknown", "its unit was restarted by someone else")
"""What is known of the end of a process whose place another one, of nobody's here, has taken."""
