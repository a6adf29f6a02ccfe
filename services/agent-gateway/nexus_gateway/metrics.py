"""What the gateway counts and times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from nexus_gateway.guest import State

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

_meter = metrics.get_meter(__name__)

commands = _meter.create_counter("nexus.gateway.commands", description="Commands started in guests")
command_seconds = _meter.create_histogram(
    "nexus.gateway.command.duration",
    unit="s",
    description="Time from the request to a command's exit",
    explicit_bucket_boundaries_advisory=[0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 1000],
)
received = _meter.create_counter(
    "nexus.gateway.received", unit="By", description="Bytes of files and output from guests"
)
sent = _meter.create_counter(
    "nexus.gateway.sent", unit="By", description="Bytes of files and input to guests"
)
mcp_sessions = _meter.create_up_down_counter(
    "nexus.gateway.mcp.sessions", description="MCP sessions open over gRPC"
)
tool_calls = _meter.create_counter("nexus.gateway.mcp.calls", description="MCP tool calls")


def observe_guests(count: Callable[[], Counter[State]]) -> None:
    """Export how many guests are in which state."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        counted = count()
        return [Observation(counted[state], {"state": state.name.lower()}) for state in State]

    _meter.create_observable_gauge(
        "nexus.gateway.guests", callbacks=[observe], description="Guests by state"
    )
