"""The figures of single VMs, for Prometheus.

A collector of our own beside OpenTelemetry's, which keeps 2,000 series a name and takes several
times as long over as many (see `nexus_netd.metrics`, which does the same). They are read when
somebody scrapes, at most every 5 s, on the scrape's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from nexus_vmm.states import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

    from nexus_vmm.records.watch import Hub
    from nexus_vmm.reports.usage import Meter, Usage

FRESH = 5.0
"""Seconds for which figures are not read again, whoever asks."""
MOST = 1_000
"""VMs of which there are figures, the oldest ones; further live ones are counted as unmeasured."""


class Figure(NamedTuple):
    """A metric with a value for each live VM; `directed` ones have one for each direction."""

    kind: type[CounterMetricFamily | GaugeMetricFamily]
    description: str
    directed: bool = False


FIGURES = {
    "cpu_seconds": Figure(
        CounterMetricFamily, "CPU time in this boot, of the guest and of Firecracker"
    ),
    "cpu_throttled_seconds": Figure(
        CounterMetricFamily, "Time in this boot for which it wanted more CPU than its limit"
    ),
    "memory_bytes": Figure(
        GaugeMetricFamily, "Memory in use, the host's cache of its disk included"
    ),
    "memory_limit_bytes": Figure(GaugeMetricFamily, "What its process may use at most"),
    "oom_kills": Figure(CounterMetricFamily, "Processes killed in this boot for want of memory"),
    "disk_bytes": Figure(GaugeMetricFamily, "Room on the host that its disk takes"),
    "io_bytes": Figure(
        CounterMetricFamily,
        "Bytes read from and written to the disk in this boot, as far as they are ascribed to it",
        directed=True,
    ),
    "network_bytes": Figure(
        CounterMetricFamily, "Bytes through its TAP, since that was made", directed=True
    ),
}
"""By name, of which Prometheus sees `PREFIX` before and, of counters, "_total" behind."""
PREFIX = "nexus_vmm_vm_"
LABELS = ("vm_id", "name")
UNMEASURED = "nexus_vmm_vms_unmeasured"

_log = logging.getLogger(__name__)


class _Row(NamedTuple):
    labels: tuple[str, str]
    usage: Usage


class Figures:
    """The figures of the live VMs of `hub`; asked from other threads only."""

    def __init__(self, hub: Hub, meter: Meter) -> None:
        self._hub = hub
        self._meter = meter
        self._lock = threading.Lock()
        self._rows: Sequence[_Row] = ()
        self._unmeasured = 0
        self._at = float("-inf")
        self._told = ""

    @contextmanager
    def served(self) -> Iterator[None]:
        """Let the figures be scraped while the block runs."""
        REGISTRY.register(self)
        try:
            yield
        finally:
            REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Name what `collect` yields."""
        return families((), 0)

    def collect(self) -> Iterable[Metric]:
        """Return each VM's figures."""
        with self._lock:
            if time.monotonic() - self._at >= FRESH:
                self._read()
                self._at = time.monotonic()
            return families(self._rows, self._unmeasured)

    def _read(self) -> None:
        live = [vm for vm in self._hub.present() if vm.state in LIVE]
        rows, trouble = [], ""
        for vm in live[:MOST]:
            try:
                rows.append(_Row((vm.id, vm.name), self._meter.read(vm)))
            except (OSError, ValueError) as error:
                trouble = f"what VM {vm.id} uses cannot be read: {error}"
        self._rows, self._unmeasured = rows, len(live) - len(rows)
        if trouble and not self._told:
            _log.warning("%s", trouble)  # once, not at each scrape
        self._told = trouble


def families(rows: Sequence[_Row], unmeasured: int) -> Iterator[Metric]:
    """Yield the metrics of `rows`."""
    for name, figure in FIGURES.items():
        labels = (*LABELS, "direction") if figure.directed else LABELS
        family = figure.kind(PREFIX + name, figure.description, labels=labels)
        for row in rows:
            for (key, direction), value in row.usage.items():
                if key == name:
                    family.add_metric((*row.labels, direction) if direction else row.labels, value)
        yield family
    yield GaugeMetricFamily(UNMEASURED, "Live VMs without figures", value=unmeasured)
