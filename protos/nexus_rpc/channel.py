"""Client channels: to a unix socket, or to TCP with mTLS, and the caller's trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry import propagate

if TYPE_CHECKING:
    from pathlib import Path

MAX_MESSAGE = 20 * 1024 * 1024
"""Bytes of the largest message, both ways: a 16 MiB MCP message and its frame fit."""

OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A peer that is gone without a word is noticed after 30 + 10 s; pings on idle calls only.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that takes no such pings would end the connection (ENHANCE_YOUR_CALM).
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # An address given is the one meant: $http_proxy is for other traffic.
    ("grpc.enable_http_proxy", 0),
]
"""Of channels and servers alike."""

# A server that was away for long is found again soon: gRPC's own waiting grows to two minutes.
_CLIENT = [*OPTIONS, ("grpc.max_reconnect_backoff_ms", 1_000)]


@dataclass(frozen=True)
class ClientTls:
    """Files, in PEM, by which client and server know each other."""

    ca: Path
    cert: Path
    key: Path


def connect(target: str, tls: ClientTls | None = None) -> grpc.aio.Channel:
    """Return a channel to `target`: "unix:/path", or "host:port" with `tls`.

    Connects on first use. Raises OSError when a file of `tls` cannot be read.
    """
    if tls is None:
        return grpc.aio.insecure_channel(target, _CLIENT)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes(),
        private_key=tls.key.read_bytes(),
        certificate_chain=tls.cert.read_bytes(),
    )
    return grpc.aio.secure_channel(target, credentials, _CLIENT)


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Return the metadata that puts a call into the present trace (W3C traceparent)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())
