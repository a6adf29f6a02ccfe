"""What netd measures beyond its calls: ports, networks, pins, repairs and denials.

Figures of single ports are rendered by a Prometheus collector of our own, beside OpenTelemetry's:
at 4,000 ports they are 28,000 series, which the SDK renders in 0.75 s, holding up the loop for
55 ms (measured; ours: 0.13 s and 8 ms), and of which it keeps 2,000 a name. By OTLP go totals.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from opentelemetry import metrics
from opentelemetry.metrics import Observation
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from nexus_netd.kernel import Counters, KernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import CallbackOptions
    from prometheus_client.core import Metric

    from nexus_netd.model import Address
    from nexus_netd.view import View

FRESH = 5.0
"""Seconds for which figures are not read again, whoever asks."""

_TIMEOUT = 3.0  # seconds for the kernel; a scrape has 5
_NOTHING = Counters(0, 0, 0, 0, 0)

_log = logging.getLogger(__name__)
_meter = metrics.get_meter(__name__)

_repairs = _meter.create_counter(
    "nexus.netd.repairs",
    description="Things in the kernel that were not as the store says, put right, by kind",
)
_denials = _meter.create_counter(
    "nexus.netd.denials",
    description="Packets and names refused, by rule; at most 10 a second and guest are seen",
)


def repaired(kind: str, number: int = 1) -> None:
    """Count repairs; `kind` is one of few words: "table", "bridge" and so on."""
    _repairs.add(number, {"kind": kind})


def denied(rule: str, number: int) -> None:
    """Count denials. A rule's number means something in its policy only, and is left out."""
    _denials.add(number, {"rule": "rule" if rule.startswith("rule ") else rule})


class Kernel(Protocol):
    """Of `nexus_netd.kernel.Kernel`, what counts."""

    async def counters(self) -> Mapping[str, Counters]:
        """Return what went through each of our TAPs."""

    async def denied(self) -> Mapping[Address, int]:
        """Return how many packets each guest was refused, by its address."""

    async def connections(self) -> Mapping[Address, int]:
        """Return how many connections each source has."""


@dataclass(frozen=True)
class _Row:
    """One port's figures."""

    labels: tuple[str, str]  # the VM and the network
    tap: str
    counters: Counters
    denied: int
    connections: int


@dataclass(frozen=True)
class _Figures:
    """What was read at one time. `rows` are empty when the kernel did not answer."""

    rows: tuple[_Row, ...] = ()
    ports: Counter[str] = field(default_factory=Counter)
    capacity: Mapping[str, int] = field(default_factory=dict)
    pins: int = 0


class Figures:
    """The figures, read when somebody asks and at most every 5 s; asked from other threads only.

    `pins` returns how many pins are live. A scrape or a push waits in a thread of its own while the
    loop has the kernel asked.
    """

    def __init__(self, kernel: Kernel, view: View, pins: Callable[[], int]) -> None:
        self._kernel = kernel
        self._view = view
        self._pins = pins
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._latest = _Figures()
        self._at = float("-inf")
        self._closed = False
        self._totals = _Totals()
        self._told = ""

    @contextmanager
    def served(self) -> Iterator[None]:
        """Let the figures be scraped and pushed while the block runs."""
        REGISTRY.register(self)
        for name, value, description in (
            ("nexus.netd.ports", self._ports, "Ports attached, by network"),
            ("nexus.netd.capacity", self._capacity, "Addresses for ports, by network"),
            ("nexus.netd.pins", self._live_pins, "Addresses that guests may reach by a name, now"),
            ("nexus.netd.connections", self._connections, "Tracked connections, by network"),
        ):
            _meter.create_observable_gauge(name, [value], description=description)
        for name, unit, value, description in (
            ("nexus.netd.bytes", "By", self._bytes, "Bytes through ports, by network"),
            ("nexus.netd.packets", "", self._packets, "Packets through ports, by network"),
        ):
            _meter.create_observable_counter(name, [value], unit=unit, description=description)
        try:
            yield
        finally:
            REGISTRY.unregister(self)
            # The last push comes after the kernel was closed: it gets what was read last.
            self._closed = True

    def describe(self) -> Iterable[Metric]:
        """Name what `collect` yields."""
        return _families(())

    def collect(self) -> Iterable[Metric]:
        """Return each port's figures."""
        return _families(self._now().rows)

    def _now(self) -> _Figures:
        """Return what was read in the last 5 s, or read; a scraper at the same time waits."""
        with self._lock:
            if not self._closed and time.monotonic() - self._at >= FRESH:
                reading = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
                try:
                    self._latest = reading.result(_TIMEOUT + 1.0)()
                except TimeoutError:
                    reading.cancel()
                    self._latest = _Figures()
                self._at = time.monotonic()
            return self._latest

    async def _read(self) -> Callable[[], _Figures]:
        """Ask view and kernel. Returns the arithmetic, which is not for the loop's thread."""
        leases = [
            (vm_id, self._view.ports[vm_id].network, guest.tap, guest.addresses)
            for vm_id, guest in self._view.guests.items()
        ]
        capacity = {name: spec.subnet.capacity for name, spec in self._view.networks.items()}
        pins = self._pins()
        counted: tuple[Mapping[str, Counters], Mapping[Address, int], Mapping[Address, int]] | None
        try:
            async with asyncio.timeout(_TIMEOUT):
                counted = (
                    await self._kernel.counters(),
                    await self._kernel.denied(),
                    await self._kernel.connections(),
                )
            self._tell("")
        except (KernelError, TimeoutError) as error:
            counted = None
            self._tell(
                f"ports are not counted: {str(error) or 'the kernel did not answer in time'}"
            )

        def work_out() -> _Figures:
            ports = Counter(network for _, network, _, _ in leases)
            if counted is None:
                return _Figures((), ports, capacity, pins)
            counters, denied, connections = counted
            rows = tuple(
                _Row(
                    (vm_id, network),
                    tap,
                    counters.get(tap, _NOTHING),
                    sum(denied.get(address, 0) for address in addresses),
                    sum(connections.get(address, 0) for address in addresses),
                )
                for vm_id, network, tap, addresses in leases
            )
            self._totals.add(rows)
            return _Figures(rows, ports, capacity, pins)

        return work_out

    def _tell(self, trouble: str) -> None:
        if trouble and trouble != self._told:
            _log.warning("%s", trouble)  # once, not at each scrape
        self._told = trouble

    def _ports(self, _: CallbackOptions) -> list[Observation]:
        now = self._now()
        return [Observation(now.ports[name], {"network": name}) for name in now.capacity]

    def _capacity(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(room, {"network": name}) for name, room in self._now().capacity.items()]

    def _live_pins(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(self._now().pins)]

    def _connections(self, _: CallbackOptions) -> list[Observation]:
        now = self._now()
        sums = Counter(dict.fromkeys(now.capacity, 0))
        for row in now.rows:
            sums[row.labels[1]] += row.connections
        return [Observation(number, {"network": name}) for name, number in sums.items()]

    def _bytes(self, _: CallbackOptions) -> list[Observation]:
        self._now()
        return _observed(self._totals.bytes)

    def _packets(self, _: CallbackOptions) -> list[Observation]:
        self._now()
        return _observed(self._totals.packets)


class _Totals:
    """Sums over all ports that there were: they go on growing when a port goes."""

    def __init__(self) -> None:
        self.bytes = Counter[tuple[str, str]]()  # by network and direction
        self.packets = Counter[tuple[str, str]]()
        self._before: dict[tuple[str, str], Counters] = {}  # by VM and TAP

    def add(self, rows: Iterable[_Row]) -> None:
        """Add what went through since the rows before."""
        before, self._before = self._before, {}
        for row in rows:
            network, key, now = row.labels[1], (row.labels[0], row.tap), row.counters
            old = before.get(key, _NOTHING)
            if now.sent_packets < old.sent_packets or now.received_packets < old.received_packets:
                old = _NOTHING  # the TAP was made anew
            self._before[key] = now
            self.bytes[network, "egress"] += now.sent_bytes - old.sent_bytes
            self.bytes[network, "ingress"] += now.received_bytes - old.received_bytes
            self.packets[network, "egress"] += now.sent_packets - old.sent_packets
            self.packets[network, "ingress"] += now.received_packets - old.received_packets


def _observed(totals: Counter[tuple[str, str]]) -> list[Observation]:
    return [
        Observation(number, {"network": network, "direction": direction})
        for (network, direction), number in totals.copy().items()
    ]


def _families(rows: tuple[_Row, ...]) -> Iterator[Metric]:
    labels = ("vm_id", "network")
    both_ways = (*labels, "direction")
    sizes = CounterMetricFamily(
        "nexus_netd_port_bytes", "Bytes through the port, since its TAP was made", labels=both_ways
    )
    packets = CounterMetricFamily(
        "nexus_netd_port_packets", "Packets through the port", labels=both_ways
    )
    dropped = CounterMetricFamily(
        "nexus_netd_port_dropped_packets", "Packets lost at the TAP", labels=labels
    )
    refused = CounterMetricFamily(
        "nexus_netd_port_denied_packets", "Packets that a rule refused", labels=labels
    )
    connections = GaugeMetricFamily(
        "nexus_netd_port_connections", "Connections that are tracked now", labels=labels
    )
    for row in rows:
        sent, received = (*row.labels, "egress"), (*row.labels, "ingress")
        sizes.add_metric(sent, row.counters.sent_bytes)
        sizes.add_metric(received, row.counters.received_bytes)
        packets.add_metric(sent, row.counters.sent_packets)
        packets.add_metric(received, row.counters.received_packets)
        dropped.add_metric(row.labels, row.counters.dropped_packets)
        refused.add_metric(row.labels, row.denied)
        connections.add_metric(row.labels, row.connections)
    yield from (sizes, packets, dropped, refused, connections)
