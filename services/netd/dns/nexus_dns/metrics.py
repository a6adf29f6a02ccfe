"""What the resolver counts and times."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Outcome(StrEnum):
    """What became of a query."""

    ANSWERED = "answered"
    LOCAL = "local"
    NAME = "name"
    PRIVATE = "private answer"
    KIND = "kind"
    MALFORMED = "malformed"
    UNKNOWN = "unknown source"
    RATE = "rate"
    BUSY = "busy"
    UPSTREAM = "upstream"
    PIN = "pin"
    DEFECT = "defect"


_meter = metrics.get_meter(__name__)

_outcomes: Counter[Outcome] = Counter()

upstream_seconds = _meter.create_histogram(
    "nexus.dns.upstream.duration",
    unit="s",
    description="Time from a question to a server's answer, or to the end of the search for one",
    explicit_bucket_boundaries_advisory=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
)
pin_seconds = _meter.create_histogram(
    "nexus.dns.pin.duration",
    unit="s",
    description="Time that netd took to let a guest reach an answer's addresses",
    explicit_bucket_boundaries_advisory=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
)
denials_lost = _meter.create_counter(
    "nexus.dns.denials.lost", description="Denials that netd was not told of: too many at once"
)


def count(outcome: Outcome) -> None:
    """Count a query: plainly, since a flood comes by here."""
    _outcomes[outcome] += 1


def _observe_queries(_: CallbackOptions) -> Iterable[Observation]:
    return [Observation(_outcomes[outcome], {"outcome": outcome}) for outcome in Outcome]


_meter.create_observable_counter(
    "nexus.dns.queries", callbacks=[_observe_queries], description="Queries by what became of them"
)


def observe(name: str, read: Callable[[], int], description: str) -> None:
    """Export what `read` returns as the gauge nexus.dns.NAME."""

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(read())]

    _meter.create_observable_gauge(
        f"nexus.dns.{name}", callbacks=[callback], description=description
    )
