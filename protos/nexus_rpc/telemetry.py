"""Telemetry of a process: OpenTelemetry traces and metrics, and a Prometheus endpoint.

Metrics can always be scraped. Traces and metrics are pushed by OTLP where an endpoint is set.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from opentelemetry.sdk.metrics.export import MetricReader

_MAX_HEAD = 8192
_TIMEOUT = 5.0


@asynccontextmanager
async def telemetry(service: str, otlp_endpoint: str) -> AsyncIterator[None]:
    """Install the process's providers; on leaving, push what is left.

    `otlp_endpoint` is a gRPC URL such as "http://127.0.0.1:4317"; empty means no push.
    """
    resource = Resource.create({"service.name": f"nexus-{service}"})
    readers: list[MetricReader] = [PrometheusMetricReader()]
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    if otlp_endpoint:
        # Imported only here: the exporter costs memory in every service that does not push.
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (  # noqa: PLC0415
            OTLPMetricExporter,
        )
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
            PeriodicExportingMetricReader,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(otlp_endpoint)))
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(otlp_endpoint)))
    meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)
    try:
        yield
    finally:
        await asyncio.to_thread(tracers.shutdown)
        await asyncio.to_thread(meters.shutdown, timeout_millis=_TIMEOUT * 1000)


@asynccontextmanager
async def prometheus(listen: str, path: Path) -> AsyncIterator[None]:
    """Serve the metrics as text over HTTP while the block runs.

    `listen` is "HOST:PORT" with a loopback host; empty means the unix socket at `path`.
    """
    if listen:
        host, _, port = listen.rpartition(":")
        server = await asyncio.start_server(_answer, host, int(port), limit=_MAX_HEAD)
    else:
        server = await asyncio.start_unix_server(_answer, sock=_bound(path), limit=_MAX_HEAD)
    async with server:
        yield


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o660)
    return listener


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
            found = head.startswith((b"GET /metrics ", b"GET / "))
            # In a thread: at thousands of series, encoding would hold up the loop.
            body = (
                await asyncio.to_thread(generate_latest, REGISTRY) if found else b"GET /metrics\n"
            )
            status = "200 OK" if found else "404 Not Found"
            kind = CONTENT_TYPE_LATEST if found else "text/plain"
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        pass  # a client that sends no request, or goes away, is owed nothing
    finally:
        writer.close()
