"""DNS over UDP on one address."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

from nexus_dns import metrics
from nexus_dns.metrics import Outcome
from nexus_dns.query import LARGEST

if TYPE_CHECKING:
    import socket

    from nexus_dns.resolver import Client, Resolver

_AT_ONCE = 32
"""Datagrams that are taken before other work has its turn."""


class UdpListener:
    """Answers the datagrams of a socket. What cannot be sent at once is lost, as UDP may be."""

    def __init__(
        self, listener: socket.socket, resolver: Resolver, tasks: asyncio.TaskGroup, *, host: bool
    ) -> None:
        """Begin to listen. `host`: every client is the host itself."""
        self._listener = listener
        self._resolver = resolver
        self._tasks = tasks
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener, self._receive)

    def close(self) -> None:
        """Listen no more; answers under way are lost."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                wire, sender = self._listener.recvfrom(LARGEST + 1)
            except OSError:  # nothing is left, or the network has a passing trouble
                return
            client = self._client(sender[0])
            if client is None:
                continue
            if len(wire) > LARGEST:
                metrics.count(Outcome.MALFORMED)
                continue
            self._tasks.create_task(self._answer(client, wire, sender))

    def _client(self, address: str) -> Client | None:
        if self._host:
            return self._resolver.host()
        return self._resolver.guest(ip_address(address.partition("%")[0]))

    async def _answer(self, client: Client, wire: bytes, sender: tuple[str | int, ...]) -> None:
        reply = await self._resolver.answer(client, wire, by_tcp=False)
        if reply is not None:
            with contextlib.suppress(OSError):
                self._listener.sendto(reply, sender)
