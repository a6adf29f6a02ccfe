"""DNS over TCP (RFC 7766): each message has its length, in two bytes, before it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import defaultdict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from nexus_dns.limits import CONNECTIONS, CONNECTIONS_PER_GUEST
from nexus_dns.query import LARGEST

if TYPE_CHECKING:
    import socket

    from nexus_dns.resolver import Client, Resolver
    from nexus_rpc.addresses import Address

IDLE_SECONDS = 10.0
"""Without a whole query, or without taking an answer: the connection is closed."""

PIPELINED = 16
"""Queries of a connection that are answered at one time; the next are read after."""


class Connections:
    """All TCP connections, by the address that they came from, oldest first."""

    def __init__(self) -> None:
        self._open: defaultdict[Address, list[asyncio.StreamWriter]] = defaultdict(list)

    def count(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._open.values()))

    def add(self, source: Address, writer: asyncio.StreamWriter) -> bool:
        """Take a connection. False: its source has too many.

        When there are too many of all, the source that has most loses its oldest one.
        """
        if len(self._open[source]) >= CONNECTIONS_PER_GUEST:
            return False
        if self.count() >= CONNECTIONS:
            most = max(self._open.values(), key=len)
            most.pop(0).transport.abort()
        self._open[source].append(writer)
        return True

    def remove(self, source: Address, writer: asyncio.StreamWriter) -> None:
        """Let a connection go; one that was taken away is no error."""
        with contextlib.suppress(ValueError):
            self._open[source].remove(writer)
        if not self._open[source]:
            del self._open[source]


class TcpListener:
    """Answers the connections of one socket."""

    def __init__(
        self, resolver: Resolver, connections: Connections, tasks: asyncio.TaskGroup, *, host: bool
    ) -> None:
        """`host`: every client is the host itself."""
        self._resolver = resolver
        self._connections = connections
        self._tasks = tasks
        self._host = host
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self, listener: socket.socket) -> None:
        """Begin to listen on a bound socket."""
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=LARGEST)

    def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        source = ip_address(peer[0].partition("%")[0]) if peer else None  # it may be gone already
        known = source and (self._host or self._resolver.is_guest(source))
        if not source or not known or not self._connections.add(source, writer):
            writer.transport.abort()
            return
        writer.transport.set_write_buffer_limits(high=0)  # what is drained is with the kernel
        self._writers.add(writer)
        self._tasks.create_task(self._serve(source, reader, writer))

    async def _serve(
        self, source: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with asyncio.TaskGroup() as answers:
                await self._converse(source, reader, writer, answers)
        except* (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # a client that goes away, or stays silent, is owed nothing
        finally:
            self._connections.remove(source, writer)
            self._writers.discard(writer)
            writer.close()

    async def _converse(
        self,
        source: Address,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: asyncio.TaskGroup,
    ) -> None:
        turns = asyncio.Semaphore(PIPELINED)
        writing = asyncio.Lock()
        while True:
            await turns.acquire()
            async with asyncio.timeout(IDLE_SECONDS):
                wire = await _read(reader)
            if wire is None:
                return
            client = self._resolver.host() if self._host else self._resolver.guest(source)
            if client is None:
                turns.release()
                continue
            answers.create_task(self._answer(client, wire, writer, writing, turns))

    async def _answer(
        self,
        client: Client,
        wire: bytes,
        writer: asyncio.StreamWriter,
        writing: asyncio.Lock,
        turns: asyncio.Semaphore,
    ) -> None:
        try:
            reply = await self._resolver.answer(client, wire, by_tcp=True)
            if reply is not None:
                async with asyncio.timeout(IDLE_SECONDS), writing:
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
        finally:
            turns.release()


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next query, or None at the end, and where none can be."""
    head = await reader.read(1)
    if not head:
        return None
    (length,) = struct.unpack("!H", head + await reader.readexactly(1))
    return await reader.readexactly(length) if length <= LARGEST else None
