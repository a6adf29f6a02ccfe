"""The gRPC server of a service, from its lock to its last answer.

`main` serves what `compose` returns on a unix socket (and on TCP with mTLS where that is set), with
health, reflection, metrics and logs, tells systemd how it is, and stops in order on SIGTERM.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nexus_rpc import logs
from nexus_rpc.channel import OPTIONS
from nexus_rpc.database import DatabaseError
from nexus_rpc.errors import NexusError
from nexus_rpc.health import Health
from nexus_rpc.interceptors import AroundCalls, errors, observed
from nexus_rpc.notify import notify, watchdog
from nexus_rpc.settings import SettingsError, check_loopback
from nexus_rpc.telemetry import prometheus, telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from nexus_rpc.health import Source

    Compose = Callable[[AsyncExitStack, asyncio.TaskGroup], Awaitable["Sequence[Binding]"]]

_log = logging.getLogger(__name__)


class ServerError(Exception):
    """The server cannot start. The message says why, and the way out."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Binding:
    """A servicer, its full name in the proto, and the generated function that adds it.

    `stopping` is called when the service is to stop: to end streams that have no end of their own,
    for which the stop would wait until its grace is over. `health` returns how the service and its
    parts are, by their names in grpc.health.v1.Health: it is asked before the service serves, and
    every 30 s. Without it the service is well.
    """

    name: str
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object
    stopping: Callable[[], None] = _nothing
    health: Source | None = None


@dataclass(frozen=True)
class TlsListener:
    """A TCP listener that takes only clients whose certificate is signed by `ca`.

    Relative paths are below $CREDENTIALS_DIRECTORY, where systemd's LoadCredential= puts them, or
    /etc/nexus/tls without it.
    """

    listen: str
    ca: Path = Path("ca.pem")
    cert: Path = Path("server.pem")
    key: Path = Path("server.key")


@dataclass(frozen=True)
class ServerSettings:
    """How a service is served: sockets, logs, telemetry.

    `runtime_dir` holds NAME.sock, NAME.lock and metrics.sock. `metrics_listen` ("127.0.0.1:9700")
    replaces metrics.sock. `otlp_endpoint` is a gRPC URL. `log_level` is the least level that is
    logged. `stop_seconds` is what calls under way get to end when the service stops.
    """

    runtime_dir: Path
    tls: TlsListener | None = None
    metrics_listen: str = ""
    otlp_endpoint: str = field(
        default_factory=lambda: os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    )
    log_level: str = "info"
    stop_seconds: float = 5.0

    def __post_init__(self) -> None:
        check_loopback("metrics_listen", self.metrics_listen)
        if self.log_level not in logs.LEVELS:
            raise ValueError(
                f"log_level is {self.log_level!r}: expected one of {', '.join(logs.LEVELS)}"
            )


class _Stop(Exception):  # no error: it ends the task group
    """SIGTERM or SIGINT came."""


def main(name: str, settings: ServerSettings, compose: Compose) -> int:
    """Serve what `compose` returns until SIGTERM or SIGINT. Returns the exit code.

    `compose` opens what it needs on the stack, which is closed last, and starts its background
    work in the task group: work that fails ends the service, and systemd starts it anew. For what
    it cannot start with it raises ServerError, SettingsError, DatabaseError or NexusError, whose
    message says the way out; anything else is logged as a defect.
    """
    logs.setup(name, settings.log_level)
    code = 1
    try:
        asyncio.run(_run(name, settings, compose))
    except* _Stop:
        _log.info("stopped")
        code = 0
    except* ServerError as group:
        _log.error("cannot start: %s", group.exceptions[0])  # a trace says no more
    except* Exception:  # noqa: BLE001  # the last resort: it is logged and systemd restarts us
        _log.exception("the service failed")
    return code


async def _run(name: str, settings: ServerSettings, compose: Compose) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        directory = settings.runtime_dir
        stack.enter_context(_lock(directory / f"{name}.lock"))
        await stack.enter_async_context(telemetry(name, settings.otlp_endpoint))
        await stack.enter_async_context(
            prometheus(settings.metrics_listen, directory / "metrics.sock")
        )
        resources = await stack.enter_async_context(AsyncExitStack())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watchdog())
            try:
                bindings = await compose(resources, tasks)
            except (SettingsError, DatabaseError, NexusError) as error:
                raise ServerError(str(error)) from error
            async with _serving(name, settings, bindings, tasks):
                notify("READY=1")
                _log.info("ready", extra={"socket": str(directory / f"{name}.sock")})
                await stop.wait()
                notify("STOPPING=1")
            raise _Stop


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the service's lock: a second server would silently take over the socket's path."""
    try:
        handle = path.open("w")
    except OSError as error:
        raise ServerError(f"{path.parent} cannot be used: {error}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"another server holds {path}; stop it first") from None
        yield


@asynccontextmanager
async def _serving(
    name: str, settings: ServerSettings, bindings: Sequence[Binding], tasks: asyncio.TaskGroup
) -> AsyncIterator[None]:
    server = grpc.aio.server(
        interceptors=[AroundCalls(observed), AroundCalls(errors)],
        # Without SO_REUSEPORT off, a second server could share the TCP port unnoticed.
        options=[*OPTIONS, ("grpc.so_reuseport", 0)],
    )
    names = [binding.name for binding in bindings]
    healthy = Health(names, [binding.health for binding in bindings if binding.health])
    health_pb2_grpc.add_HealthServicer_to_server(healthy.servicer, server)
    for binding in bindings:
        binding.add(binding.servicer, server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    await healthy.tell()
    _listen(server, settings, settings.runtime_dir / f"{name}.sock")
    await server.start()
    try:
        tasks.create_task(healthy.keep_telling())
        yield
    finally:
        await healthy.stop()
        for binding in bindings:
            binding.stopping()
        await server.stop(settings.stop_seconds)


def _listen(server: grpc.aio.Server, settings: ServerSettings, path: Path) -> None:
    path.unlink(missing_ok=True)  # left by a kill; the lock says that nobody serves it
    umask = os.umask(0o117)  # gRPC makes the socket with what the umask leaves: 0660
    try:
        server.add_insecure_port(f"unix:{path}")
        if settings.tls:
            server.add_secure_port(settings.tls.listen, _credentials(settings.tls))
    except RuntimeError as error:
        raise ServerError(str(error)) from error
    finally:
        os.umask(umask)


def _credentials(tls: TlsListener) -> grpc.ServerCredentials:
    base = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/etc/nexus/tls"))
    try:
        ca, cert, key = ((base / path).read_bytes() for path in (tls.ca, tls.cert, tls.key))
    except OSError as error:
        raise ServerError(f"TLS is on but a file cannot be read: {error}") from error
    return grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=ca, require_client_auth=True
    )
