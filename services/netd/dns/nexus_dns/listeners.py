"""Where the resolver listens: for the host on loopback, for guests on the gateways of networks."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from nexus_dns.tcp import Connections, TcpListener
from nexus_dns.udp import UdpListener

if TYPE_CHECKING:
    from nexus_dns.resolver import Resolver
    from nexus_dns.view import View
    from nexus_rpc.addresses import Address

_log = logging.getLogger(__name__)

HOST = IPv4Address("127.0.0.1")

_IP_FREEBIND = 15
"""linux/in.h; for IPv6 sockets too (ip(7)). The address may come later, with its bridge."""

_BACKLOG = 128
_RECEIVE_BUFFER = 1024 * 1024
"""Bytes of queries that wait; the kernel may give less (net.core.rmem_max). One guest's burst must
not push out the others' queries."""

_TRY_AGAIN = 5.0
"""Seconds after which a socket that could not be had is tried again."""


@dataclass(frozen=True)
class _Listener:
    """Both sockets of one address."""

    udp: UdpListener
    tcp: TcpListener

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


class Listeners:
    """The sockets, by address."""

    def __init__(self, resolver: Resolver, port: int, tasks: asyncio.TaskGroup) -> None:
        """`tasks` is where queries are answered."""
        self._resolver = resolver
        self._port = port
        self._tasks = tasks
        self._open: dict[Address, _Listener] = {}
        self._connections = Connections()

    def connections(self) -> int:
        """Return how many TCP connections there are."""
        return self._connections.count()

    async def listen_for_host(self) -> None:
        """Listen on loopback. Raises OSError."""
        self._open[HOST] = await self._listen(HOST, host=True)

    async def follow(self, view: View) -> None:
        """Listen for the guests of all networks, and nowhere else, from now on."""
        while True:
            view.networks_changed.clear()
            whole = await self._listen_on(view.listen() - {HOST})
            try:
                async with asyncio.timeout(None if whole else _TRY_AGAIN):
                    await view.networks_changed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Listen nowhere any more."""
        for listener in self._open.values():
            listener.close()
        self._open.clear()

    async def _listen_on(self, wanted: set[Address]) -> bool:
        """Return whether all could be had."""
        whole = True
        for address in self._open.keys() - wanted - {HOST}:
            self._open.pop(address).close()
        for address in sorted(wanted - self._open.keys(), key=str):
            try:
                self._open[address] = await self._listen(address, host=False)
            except OSError as error:
                whole = False
                _log.warning(
                    "cannot listen on %s port %s: %s; trying again", address, self._port, error
                )
        return whole

    async def _listen(self, address: Address, *, host: bool) -> _Listener:
        datagrams = _bound(address, self._port, socket.SOCK_DGRAM)
        try:
            stream = _bound(address, self._port, socket.SOCK_STREAM)
            stream.listen(_BACKLOG)
            tcp = TcpListener(self._resolver, self._connections, self._tasks, host=host)
            await tcp.listen(stream)
        except OSError:
            datagrams.close()
            raise
        return _Listener(UdpListener(datagrams, self._resolver, self._tasks, host=host), tcp)


def _bound(address: Address, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    bound = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_DGRAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        else:
            # Else connections that lately ended would hold up a restart (tcp(7), TIME_WAIT).
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((str(address), port))
    except OSError:
        bound.close()
        raise
    return bound
