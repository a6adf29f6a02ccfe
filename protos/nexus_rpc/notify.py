"""sd_notify(3): tells systemd how the service is, by a datagram to $NOTIFY_SOCKET."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def notify(state: str) -> None:
    """Send `state`, such as "READY=1". Without systemd it does nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # abstract namespace, see unix(7)
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
        client.setblocking(False)
        # systemd may be gone, or its queue full: no reason to fail a service that works.
        with contextlib.suppress(OSError):
            client.sendto(state.encode(), address)


async def watchdog() -> None:
    """Keep systemd's watchdog quiet while the event loop turns. Returns at once without one."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1_000_000
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval / 3)
