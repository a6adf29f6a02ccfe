"""MCP over Streamable HTTP at /vms/{vm}/mcp, on loopback, for who has the token.

Both eras of MCP are served by the official SDK; who may come in, and to which VM, is decided here.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from opentelemetry import propagate, trace
from starlette.datastructures import Headers

from nexus_gateway.mcp_connection import McpConnection
from nexus_gateway.mcp_server import make_server
from nexus_gateway.mcp_stream import MAX_MESSAGE
from nexus_rpc.errors import InvalidArgument, NexusError, NotFound

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping

    from starlette.types import Receive, Scope, Send

    from nexus_gateway.mcp_server import Context
    from nexus_gateway.settings import McpSettings
    from nexus_gateway.streams import Streams
    from nexus_gateway.vms import Vms

_tracer = trace.get_tracer(__name__)

_PATH = re.compile(r"/vms/([^/]+)/mcp")
# Any port: the endpoint may be reached through a forwarded one. A page of another site has
# another name here, whatever its name resolves to (DNS rebinding).
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
# Whoever may not come in holds no connection either.
_CLOSE = {"connection": "close"}
_STOP_SECONDS = 1
"""Beside the seconds that calls of gRPC get first."""


class Endpoint:
    """The ASGI application: checks, then the SDK."""

    def __init__(self, vms: Vms, manager: StreamableHTTPSessionManager, token: bytes) -> None:
        self._vms = vms
        self._manager = manager
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        headers = Headers(scope=scope)
        if not _is_local(headers):
            message = "Host and Origin, if given, must be local: the endpoint is for this machine"
            return await _refuse(send, 403, "FORBIDDEN_ORIGIN", message, _CLOSE)
        if not self._is_known(headers):
            message = "give the token of /etc/nexus/mcp-token: Authorization: Bearer TOKEN"
            return await _refuse(
                send,
                401,
                "UNAUTHENTICATED",
                message,
                {"www-authenticate": 'Bearer realm="nexus"', **_CLOSE},
            )
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            return await _refuse(send, 404, "NO_SUCH_PATH", "there is only /vms/{vm}/mcp")
        try:
            vm = await self._vms.find(match[1])
        except (NotFound, InvalidArgument) as error:
            return await _refuse(send, 404, error.reason, error.message)
        except NexusError as error:
            return await _refuse(send, 503, error.reason, error.message)
        # The SDK gives a session only to who opened it: so one VM's is no use with another.
        scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=vm.id, scopes=[]))
        context = propagate.extract(dict(headers))
        with _tracer.start_as_current_span(
            f"{scope['method']} /vms/{{vm}}/mcp", context, trace.SpanKind.SERVER
        ) as span:
            span.set_attribute("nexus.vm", vm.id)
            await self._manager.handle_request(scope, receive, send)
        return None

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode(), self._token
        )


def _vm_of(context: Context) -> str:
    """Return the id of the VM that a call's request was let in for."""
    user: AuthenticatedUser = context.request.scope["user"]  # type: ignore[union-attr]  # set by Endpoint
    return user.username


def _is_local(headers: Headers) -> bool:
    origin = headers.get("origin")
    return _LOCAL.fullmatch(headers.get("host", "")) is not None and (
        origin is None or _LOCAL.fullmatch(re.sub("^https?://", "", origin)) is not None
    )


async def _refuse(
    send: Send, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None
) -> None:
    body = json.dumps({"error": {"reason": reason, "message": message}}).encode()
    lines = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **(headers or {}),
    }
    raw = [(name.encode(), value.encode()) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """uvicorn within a service: signals, and when to stop, are the service's to say."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Let requests under way end, for `_STOP_SECONDS`, and return from `serve`."""
        self._stop.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def main_loop(self) -> None:
        """Wait for `stop`; uvicorn's own looks ten times a second."""
        await self._stop.wait()


async def serve(
    listener: socket.socket, settings: McpSettings, token: bytes, vms: Vms, streams: Streams
) -> None:
    """Serve the endpoint until cancelled; then requests under way get 1 s to end."""
    manager = StreamableHTTPSessionManager(
        make_server(vms, streams, _vm_of),
        max_request_body_size=MAX_MESSAGE,
        max_sessions=settings.max_sessions,
        session_idle_timeout=settings.idle_seconds,
    )
    server = _Server(
        uvicorn.Config(
            Endpoint(vms, manager, token),
            http=McpConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )
    async with manager.run():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        finally:
            server.stop()
            await serving
