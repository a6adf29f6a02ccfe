"""What one guest may ask of the resolver: the numbers, and the counting."""

from __future__ import annotations

from dataclasses import dataclass, field

QUERIES_PER_SECOND = 200.0
QUERIES_AT_ONCE = 400
"""Queries that a guest may send in a burst."""

DENIALS_PER_SECOND = 10.0
DENIALS_AT_ONCE = 20

IN_FLIGHT = 1024
"""Queries that wait for a server or a pin, of all guests; each has a socket."""

IN_FLIGHT_PER_GUEST = 64

CONNECTIONS = 256
"""TCP connections of all guests."""

CONNECTIONS_PER_GUEST = 8


class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` of them."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take a token at the time `now` (seconds of a monotonic clock). False: there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(eq=False)
class Share:
    """What one client has of the resolver at this time; it outlives changes of the client."""

    queries: Bucket = field(default_factory=lambda: Bucket(QUERIES_PER_SECOND, QUERIES_AT_ONCE))
    denials: Bucket = field(default_factory=lambda: Bucket(DENIALS_PER_SECOND, DENIALS_AT_ONCE))
    in_flight: int = 0
