"""Why a service cannot be reached: gRPC says UNAVAILABLE for all of it, so the socket is asked."""

from __future__ import annotations

import asyncio
import os

from nexus_rpc.errors import Unavailable

_PROBE_SECONDS = 2.0


async def why(name: str, target: str, details: str) -> Unavailable:
    """Return the error for service `name`, whose `target` a call could not use.

    `details` is what gRPC said; it is told where a connection can be made and yet broke.
    """
    kind, _, path = target.partition(":")
    try:
        await _probe(target)
    except FileNotFoundError:
        return Unavailable("SOCKET_MISSING", f"{name} is not running: there is no socket {path}")
    except PermissionError:
        group = f"nexus-{name}"
        message = f"you may not use {path}: that takes the group {group}"
        user = os.environ.get("USER", "USER")
        return Unavailable("SOCKET_DENIED", message, group=group, user=user)
    except ConnectionRefusedError:
        return Unavailable("CONNECTION_REFUSED", f"{name} is not running: {target} refuses")
    except TimeoutError:
        details = f"{target} does not answer"
    except OSError as error:
        details = f"{target}: {error.strerror or error}"
    else:
        if kind != "unix":
            return Unavailable("TLS_FAILED", f"{name} at {target} broke off: {details}")
    return Unavailable("CONNECTION_LOST", f"the connection to {name} failed: {details}")


async def _probe(target: str) -> None:
    kind, _, path = target.partition(":")
    async with asyncio.timeout(_PROBE_SECONDS):
        if kind == "unix":
            _, writer = await asyncio.open_unix_connection(path)
        else:
            host, _, port = target.rpartition(":")
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        writer.close()
        await writer.wait_closed()
