"""The time of day, and how to tell that the clock was set."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """A moment, in microseconds: `wall` since the epoch, `offset` from the boot of the host to it.

    The offset stays the same during a boot of the host unless the clock is set: CLOCK_BOOTTIME
    never jumps, and counts while the host sleeps (clock_gettime(2)).
    """

    wall: int
    offset: int


def now() -> int:
    """Return microseconds since the epoch."""
    return time.time_ns() // 1000


def moment() -> Moment:
    """Return the present."""
    wall = now()
    return Moment(wall, wall - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
