"""Which servers are asked: those of a network, or those of the host."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FROM_HOST = "from-host"

_FILES = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""systemd-resolved's list of servers, where it runs: the other file then names only resolved."""

_LOOK_AGAIN = 1.0
_MOST = 5


class HostServers:
    """The name servers of the host (resolv.conf(5)), at most 5.

    Servers on the host's loopback are named only where there are no others: what they add to the
    DNS, such as /etc/hosts, is the host's own.
    """

    def __init__(self, files: Sequence[Path] = _FILES) -> None:
        self._files = files
        self._servers: tuple[str, ...] = ()
        self._stamp: object = None
        self._looked = float("-inf")
        self._lock = asyncio.Lock()

    async def expand(self, servers: Sequence[str]) -> tuple[str, ...]:
        """Return `servers` with "from-host" replaced by the host's, as they are now.

        The file is looked at once a second at most, and read when it has changed.
        """
        if FROM_HOST not in servers:
            return tuple(servers)
        async with self._lock:
            if time.monotonic() - self._looked >= _LOOK_AGAIN:
                await asyncio.to_thread(self._look)
                self._looked = time.monotonic()
        return self._servers

    def _look(self) -> None:
        for path in self._files:
            try:
                status = path.stat()
                stamp = (path, status.st_mtime_ns, status.st_ino, status.st_size)
                if stamp != self._stamp:
                    self._servers = _servers(path.read_text(encoding="utf-8", errors="replace"))
                    self._stamp = stamp
            except OSError:
                continue
            return
        self._servers = ()
        self._stamp = None


def _servers(text: str) -> tuple[str, ...]:
    found = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                try:
                    found.append(ip_address(address))
                except ValueError:
                    continue
    outside = [address for address in found if not address.is_loopback]
    return tuple(str(address) for address in (outside or found)[:_MOST])
