"""The door to MCP: its listener and token, and the SDK behind it once somebody comes.

The official SDK takes most of a second to import, and 25 MB: commands and files do not wait for
it when the gateway starts, and whoever speaks no MCP never pays for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexus_rpc.server import ServerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from mcp.server.lowlevel import Server

    from nexus_gateway.mcp_stream import McpStream
    from nexus_gateway.settings import McpSettings
    from nexus_gateway.streams import Streams
    from nexus_gateway.vms import Vms


def read_token(path: Path) -> bytes:
    """Return the bearer token in the file. ServerError if there is none."""
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/etc/nexus")) / path
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise ServerError(
            f"no token for the MCP endpoint: {error};"
            ' make the file, or turn the endpoint off with mcp.listen = ""'
        ) from error
    if len(token) < 16:
        raise ServerError(f"{path}: the token has {len(token)} characters, expected 16 or more")
    return token


@contextmanager
def listening(listen: str) -> Iterator[socket.socket]:
    """Bind a TCP socket to "HOST:PORT". ServerError if that cannot be."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise ServerError(
                f"the MCP endpoint cannot listen on {listen}: {error};"
                " stop what listens there, or set mcp.listen"
            ) from error
        listener.listen()  # what comes before uvicorn accepts waits
        yield listener


async def serve(
    listener: socket.socket, settings: McpSettings, token: bytes, vms: Vms, streams: Streams
) -> None:
    """Serve the endpoint from the first connection on, until cancelled."""
    await _knock(listener)
    serve_http = await asyncio.to_thread(_http)
    await serve_http(listener, settings, token, vms, streams)


async def session(
    vms: Vms, streams: Streams, vm_id: str, send: Callable[[bytes], Awaitable[None]]
) -> McpStream:
    """Return an MCP session with the VM, whose answers go to `send`."""
    make_server, stream = await asyncio.to_thread(_stream)
    return stream(make_server(vms, streams, lambda _: vm_id), send)


async def _knock(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(listener, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(listener)


def _http() -> Callable[..., Awaitable[None]]:
    from nexus_gateway.mcp_http import serve  # noqa: PLC0415  # the point of this module

    return serve


def _stream() -> tuple[Callable[..., Server[Any]], type[McpStream]]:
    from nexus_gateway.mcp_server import make_server  # noqa: PLC0415
    from nexus_gateway.mcp_stream import McpStream  # noqa: PLC0415

    return make_server, McpStream
