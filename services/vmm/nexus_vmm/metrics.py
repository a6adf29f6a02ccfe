"""What vmm measures: VMs by state, the stages of a start, and how VMs end."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.metrics import CallbackOptions

    from nexus_vmm.records.watch import Hub
    from nexus_vmm.reports.health import Health

_meter = metrics.get_meter(__name__)
_tracer = trace.get_tracer(__name__)

exits = _meter.create_counter(
    "nexus.vmm.exits", description="Processes of VMs that ended, by cause"
)
stops = _meter.create_counter(
    "nexus.vmm.stops", description="VMs that were stopped, by the rung of the ladder it took"
)
restarts = _meter.create_counter(
    "nexus.vmm.restarts", description="Starts of VMs by their restart policy"
)
_stages = _meter.create_histogram(
    "nexus.vmm.start.duration",
    unit="s",
    description="Time of each stage of starting a VM",
    explicit_bucket_boundaries_advisory=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Measure what is done inside as the stage `name` of a start, with a span of its own."""
    began = time.monotonic()
    with _tracer.start_as_current_span(f"start: {name}"):
        yield
    _stages.record(time.monotonic() - began, {"stage": name})


def count_vms(hub: Hub) -> None:
    """Report from now on how many VMs of `hub` are in each state."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        # Runs on the exporter's thread: present() copies in one step of the interpreter.
        counted = Counter(vm.state for vm in hub.present())
        return [Observation(number, {"state": state}) for state, number in counted.items()]

    _meter.create_observable_gauge("nexus.vmm.vms", [observe], description="VMs by state")


def tell_health(health: Health) -> None:
    """Report from now on which subsystems worked when they were last looked at."""

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(int(one.ok), {"subsystem": one.name}) for one in health.latest]

    _meter.create_observable_gauge(
        "nexus.vmm.healthy", [observe], description="Whether a subsystem works: 1 or 0"
    )
