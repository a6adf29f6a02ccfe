"""When the time to live of a VM ends (see TimeToLive in vmm.proto).

Pure: from what is known of a VM and what the clock says to what is to be done, and when. It counts
from a StartVm or ResumeVm until a StopVm, over crashes and restarts by policy too; only what can be
paused counts where pausing is what follows. The idle time of a paused VM does not count.

Times are in microseconds since the epoch. A clock that is set moves what was recorded during the
same boot of the host along with it, so that no VM ends for that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from nexus_vmm.states import LIVE, RUNS, Event, State
from nexus_vmm.vm import ExpireAction, Lifetime

if TYPE_CHECKING:
    from nexus_vmm.clock import Moment
    from nexus_vmm.vm import TimeToLive, Vm

_SECOND = 1_000_000
SECOND = _SECOND
"""Of what a spec counts in seconds, in microseconds."""
LEAD = 60 * _SECOND
"""How long before the end it is told, or a tenth of the time if that is less."""

RETURN = 10 * _SECOND
"""For which no VM ends as idle after a start of vmm: the gateway, which says what is in use, has to
find it first. No idle time is shorter."""

_QUARTER = 4
"""Into how many parts an idle time is cut: how well the last use is known."""
_SLACK = _SECOND
"""What two readings of two clocks may be apart though neither was set."""
_LOOK_LEAST = _SECOND
"""The least between two looks at the traffic."""

_COUNTS = {
    ExpireAction.STOP: LIVE | {State.CRASHED, State.FAILED},
    ExpireAction.PAUSE: RUNS,
    ExpireAction.DELETE: LIVE | {State.CRASHED, State.FAILED},
}
_BEGINS = frozenset({Event.START, Event.RESUME})


class Due(Enum):
    """What a VM's time to live asks for."""

    NOTHING = auto()
    WARNING = auto()
    END = auto()


@dataclass(frozen=True)
class Plan:
    """What is due now, and in how many seconds to look again; None: once something changes."""

    due: Due
    again: float | None


def follow(vm: Vm, event: Event, at: Moment) -> Lifetime:
    """Return what `event`, of which a caller asked, makes of the lifetime of a VM."""
    if event in _BEGINS:
        return Lifetime(began=at.wall, used=at.wall, traffic=vm.lifetime.traffic, offset=at.offset)
    return replace(vm.lifetime, warned=False) if event is Event.PAUSE else Lifetime()


def use(life: Lifetime, at: Moment, traffic: int | None = None) -> Lifetime:
    """Return `life` after a use now, with `traffic` packets through its TAP so far."""
    packets = life.traffic if traffic is None else traffic
    return replace(shift(life, at), used=at.wall, traffic=packets, warned=False)


def is_worth_storing(vm: Vm, at: Moment) -> bool:
    """Whether a use now is to outlive vmm: that stored last is a quarter of the time old."""
    known = shift(vm.lifetime, at)
    return known.warned or _since(known.used, at) >= _part(vm.spec.ttl)


def shift(life: Lifetime, at: Moment) -> Lifetime:
    """Return `life` by the clock as it is now, if that was set since."""
    jump = at.offset - life.offset
    if not life.began or abs(jump) < _SLACK:
        return life
    return replace(life, began=life.began + jump, used=life.used + jump, offset=at.offset)


def after_return(life: Lifetime, ttl: TimeToLive, began: Moment, at: Moment) -> Lifetime:
    """Return `life` with the uses that a vmm which began at `began` cannot know of.

    The vmm before it may have known of one a quarter later than what it stored. And who uses the VM
    gets a moment to say so before its idle time ends.
    """
    if not ttl.idle_seconds:
        return life
    back = began.wall + at.offset - began.offset
    unstored = min(life.used + _part(ttl), back)
    unheard = back + RETURN - ttl.idle_seconds * SECOND
    return replace(life, used=max(life.used, unstored, unheard))


def after_host_boot(life: Lifetime, at: Moment) -> Lifetime:
    """Return `life` in another boot of the host, of which only the clock knows when it came."""
    return replace(life, offset=at.offset) if life.began else life


def ends_at(vm: Vm) -> int:
    """Return when the VM's time ends, as things are; 0: it does not."""
    return min(_ends(vm), default=(0, 0))[0]


def plan(vm: Vm, at: Moment) -> Plan:
    """Return what is due for a VM, whose lifetime is by the clock as it is."""
    ends = _ends(vm)
    if not ends:
        return Plan(Due.NOTHING, None)
    # A time that has hardly begun, by a clock that was set back, has not more than all of it left.
    left, whole = min((min(end - at.wall, whole), whole) for end, whole in ends)
    if left <= 0:
        return Plan(Due.END, None)
    lead = min(LEAD, whole // 10)
    if left <= lead and not vm.lifetime.warned:
        return Plan(Due.WARNING, None)
    waits = [left]
    if left > lead:
        waits.append(left - lead)
    if watches_traffic(vm):
        waits.append(max(_part(vm.spec.ttl), _LOOK_LEAST))
    return Plan(Due.NOTHING, min(waits) / _SECOND)


def watches_traffic(vm: Vm) -> bool:
    """Whether packets through its TAP are uses of a VM now."""
    return bool(vm.spec.ttl.idle_seconds and vm.spec.network and vm.state in RUNS)


def reason(vm: Vm, at: Moment) -> str:
    """Return why a VM whose time has ended is brought to its end, for people."""
    ttl = vm.spec.ttl
    if ttl.max_seconds and vm.lifetime.began + ttl.max_seconds * SECOND <= at.wall:
        return f"as its time to live of {ttl.max_seconds} s ended"
    return f"as it was not used for {ttl.idle_seconds} s"


def _ends(vm: Vm) -> list[tuple[int, int]]:
    """Return when each of a VM's times ends, and how long it is."""
    ttl, life = vm.spec.ttl, vm.lifetime
    if not life.began or vm.state not in _COUNTS[ttl.action]:
        return []
    ends = []
    if ttl.max_seconds:
        whole = ttl.max_seconds * SECOND
        ends.append((life.began + whole, whole))
    if ttl.idle_seconds and vm.state is not State.PAUSED:
        whole = ttl.idle_seconds * SECOND
        ends.append((life.used + whole, whole))
    return ends


def _part(ttl: TimeToLive) -> int:
    return ttl.idle_seconds * SECOND // _QUARTER


def _since(then: int, at: Moment) -> int:
    return abs(at.wall - then)
