"""What netd measures beyond its calls: ports, and repairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions

    from nexus_netd.leases import Leases

_meter = metrics.get_meter(__name__)

repairs = _meter.create_counter(
    "nexus.netd.repairs",
    description="Things in the kernel that were not as the store says, put right",
)


def count_ports(leases: Leases) -> None:
    """Report from now on how many ports there are."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(leases.held)]

    _meter.create_observable_gauge("nexus.netd.ports", [observe], description="Ports attached")
