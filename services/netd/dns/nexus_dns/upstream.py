"""Asks a server: by UDP, and by TCP when the answer did not fit.

An answer counts only when it comes from where the question went (the socket is connected), to a
fresh port of the kernel's choice, with the question's random number and the question itself
(RFC 5452).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from nexus_dns import metrics
from nexus_dns.query import LARGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_dns.servers import HostServers

BUDGET = 4.0
"""Seconds for a question, over all servers and tries: clients ask again after 5."""

_PORT = 53
_ROUNDS = 2
_FALSE_ANSWERS = 16
"""That many messages that are no answer, and a server is given up."""

_LARGEST_TCP = 16_384
_TC = 0x02
_GOOD = frozenset({dns.rcode.NOERROR, dns.rcode.NXDOMAIN})


@dataclass(frozen=True)
class Question:
    """What is asked: a name, a type, and for DNSSEC the flags DO and CD (RFC 4035)."""

    name: dns.name.Name
    kind: dns.rdatatype.RdataType
    dnssec: bool = False
    unchecked: bool = False


class NoAnswer(Exception):
    """No server gave a usable answer in time."""


class Upstream(Protocol):
    """What knows the names of the world."""

    async def ask(self, servers: Sequence[str], question: Question) -> bytes:
        """Return an answer as it came, its header and question checked; its code says that the name
        is or is not. Raises NoAnswer.
        """


class Servers:
    """Upstream, over the network."""

    def __init__(self, host: HostServers) -> None:
        self._host = host

    async def ask(self, servers: Sequence[str], question: Question) -> bytes:
        """See Upstream."""
        began = time.monotonic()
        result = "failed"
        try:
            answer = await self._ask(await self._host.expand(servers), question)
            result = "answered"
        finally:
            metrics.upstream_seconds.record(time.monotonic() - began, {"result": result})
        return answer

    async def _ask(self, servers: Sequence[str], question: Question) -> bytes:
        tries = [*servers] * _ROUNDS
        loop = asyncio.get_running_loop()
        end = loop.time() + BUDGET
        for server in tries:
            # A server that refuses at once leaves its time to the others.
            patience = min(BUDGET / len(tries), end - loop.time())
            try:
                async with asyncio.timeout(patience):
                    return await _ask_one(server, question)
            except (TimeoutError, OSError, _Unusable):
                continue
        raise NoAnswer


class _Unusable(Exception):
    """The server answered, but not the question."""


class _Sent:
    """A question as it was sent."""

    def __init__(self, question: Question) -> None:
        message = dns.message.make_query(
            question.name,
            question.kind,
            use_edns=0,
            want_dnssec=question.dnssec,
            payload=LARGEST,
        )
        if question.unchecked:
            message.flags |= dns.flags.CD
        self.wire = message.to_wire()
        self._asked = len(question.name.to_wire() or b"") + 4
        self._number = message.id

    def is_answered_by(self, wire: bytes) -> bool:
        """Tell whether `wire` is an answer to this question."""
        end = 12 + self._asked
        if len(wire) < end:
            return False
        number, flags, questions = struct.unpack_from("!3H", wire)
        return (
            number == self._number
            and flags & 0xF800 == 0x8000  # an answer, to a standard query
            and questions == 1
            # Servers may change the case of letters, but not the type and class.
            and wire[12 : end - 4].lower() == self.wire[12 : end - 4].lower()
            and wire[end - 4 : end] == self.wire[end - 4 : end]
        )


async def _ask_one(server: str, question: Question) -> bytes:
    sent = _Sent(question)
    # Numeric: nothing is looked up. It knows of scopes ("fe80::1%eth0"), as resolv.conf has them.
    (family, _, _, _, address), *_ = socket.getaddrinfo(
        server, _PORT, flags=socket.AI_NUMERICHOST, type=socket.SOCK_DGRAM
    )
    wire = await _by_udp(family, address, sent)
    if wire[2] & _TC:
        wire = await _by_tcp(family, address, sent)
    if wire[3] & 0x0F not in _GOOD:
        raise _Unusable
    return wire


async def _by_udp(family: int, address: tuple[object, ...], sent: _Sent) -> bytes:
    loop = asyncio.get_running_loop()
    with closing(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)) as client:
        client.connect(address)  # waits for nothing: it only binds
        await loop.sock_sendall(client, sent.wire)
        for _ in range(_FALSE_ANSWERS):
            wire = await loop.sock_recv(client, LARGEST)
            if sent.is_answered_by(wire):
                return wire
    raise _Unusable


async def _by_tcp(family: int, address: tuple[object, ...], sent: _Sent) -> bytes:
    loop = asyncio.get_running_loop()
    with closing(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)) as client:
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, struct.pack("!H", len(sent.wire)) + sent.wire)
        (length,) = struct.unpack("!H", await _exactly(client, 2))
        if length > _LARGEST_TCP:
            raise _Unusable
        wire = await _exactly(client, length)
    if not sent.is_answered_by(wire):
        raise _Unusable
    return wire


async def _exactly(client: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    found = bytearray()
    while len(found) < count:
        chunk = await loop.sock_recv(client, count - len(found))
        if not chunk:
            raise _Unusable
        found += chunk
    return bytes(found)
