"""One netlink socket: several requests in one message to the kernel, all answers within a time.

pyroute2 makes rtnetlink's requests; answers are read with `struct`: a look at 4,000 ports is tens
of thousands of messages. The socket blocks, as rtnetlink does its work inside sendmsg(2), so it
belongs on a thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus_netd.kernel import KernelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pyroute2.netlink import nlmsg

# linux/netlink.h
REQUEST, ACK, DUMP = 0x001, 0x004, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
ROUTE, SOCK_DIAG, NETFILTER = 0, 4, 12
HEADER = 16
"""Length of a message's header in bytes."""

_DUMP_INTERRUPTED = 0x010
_ERROR, _DONE = 2, 3
_ACK_TLVS = 0x200
_ERROR_TEXT = 1
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 270, 10, 11, 12
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED, _KIND = 0x8000, 0x3FFF

_TIMEOUT = 5.0
_RECEIVE = 1 << 16
_ROOM = 1 << 18
_ACK_ROOM = 1 << 10
_DUMP_TRIES = 10


@dataclass(frozen=True)
class Request:
    """One message. `what` names it in errors; an errno in `tolerate` is as good as success.

    `body` is what follows the header: the family's own header and the attributes.
    """

    what: str
    type: int
    flags: int
    body: bytes
    tolerate: frozenset[int] = field(default=frozenset())


def attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded to 4 bytes."""
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length & 3)


def nest(kind: int, *parts: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """Return an attribute with a string, ended by a zero."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """Return an attribute with one byte."""
    return attribute(kind, value.to_bytes(1, "little"))


def u32(kind: int, value: int) -> bytes:
    """Return an attribute with a number of 4 bytes, in the host's order."""
    return attribute(kind, struct.pack("=I", value))


def encoded(message: nlmsg, attrs: Sequence[tuple[Any, ...]] = (), **fields: int) -> bytes:
    """Return a message of pyroute2's without its header, which `Netlink.run` writes.

    A field of the message that is itself called flags is given as `flags_`.
    """
    for name, value in fields.items():
        message[name.removesuffix("_")] = value
    message["attrs"] = list(attrs)
    message.encode()
    return bytes(message.data[_HEADER.size :])


def attributes(data: bytes, offset: int = 0, end: int | None = None) -> dict[int, bytes]:
    """Return what attributes lie between `offset` and `end`, by kind; the last of a kind counts.

    Stops at the first that does not fit.
    """
    end = len(data) if end is None else end
    found = {}
    unpack = _ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            break
        found[kind & _KIND] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Shapes:
    """Finds attributes of some kinds in messages most of which are of a few shapes.

    Where they lay in the last message of the same length is looked at first: to walk over the 40
    attributes of each of 4,000 links would take most of a look at them.
    """

    def __init__(self, offset: int, kinds: Collection[int]) -> None:
        self._offset = offset
        self._kinds = kinds
        self._known: dict[tuple[int, bytes], list[tuple[int, bytes, int, int]]] = {}

    def find(self, data: bytes) -> dict[int, bytes]:
        """Return at least those of the kinds that are there."""
        first = self._offset
        shape = (len(data), data[first : first + 2])
        found = {}
        for kind, header, start, end in self._known.get(shape, ()):
            if data[start - 4 : start] != header:
                break
            found[kind] = data[start:end]
        if len(found) == len(self._kinds):
            return found
        found = attributes(data, first)
        if all(kind in found for kind in self._kinds):
            self._known[shape] = list(self._places(data))
        return found

    def _places(self, data: bytes) -> Iterator[tuple[int, bytes, int, int]]:
        start = self._offset
        while start + 4 <= len(data):
            length, kind = _ATTRIBUTE.unpack_from(data, start)
            if length < 4:
                return
            if kind & _KIND in self._kinds:
                yield kind & _KIND, data[start : start + 4], start + 4, start + length
            start += (length + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Split a datagram: type, flags, sequence, sender's port, and the whole message, of each."""
    offset, size = 0, len(data)
    while offset + HEADER <= size:
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < HEADER or offset + length > size:
            return
        yield kind, flags, sequence, port, data[offset : offset + length]
        offset += (length + 3) & ~3


class Netlink:
    """A socket of one netlink protocol. For one thread; waits 5 s at most for each answer."""

    def __init__(self, protocol: int) -> None:
        self._sequence = 0
        self._room = _ROOM
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.settimeout(_TIMEOUT)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        if protocol == ROUTE:
            # Else the kernel does not look at what a dump is to be narrowed to (Linux 4.20).
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        self._socket.bind((0, 0))

    @property
    def port(self) -> int:
        """The address that the kernel names as the author of what this socket changes."""
        number: int = self._socket.getsockname()[0]
        return number

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def detach(self) -> socket.socket:
        """Return the socket, to be used without this object."""
        return self._socket

    def run(self, *requests: Request) -> list[list[bytes]]:
        """Send the requests as one datagram and return the answers to each, headers included.

        The kernel takes them in order and goes on after a failure (an nftables batch is undone
        as a whole). Raises KernelError for the first that failed.
        """
        answers, _ = self._run(requests)
        return answers

    def count(self, *requests: Request) -> int:
        """Send requests and return how many of them were not merely tolerated."""
        _, tolerated = self._run(requests)
        return len(requests) - tolerated

    def dump(self, one: Request) -> list[bytes]:
        """Return everything that a DUMP request lists, from one unbroken pass."""
        for _ in range(_DUMP_TRIES):
            answers = self.run(one)[0]
            if not any(answer[6] & _DUMP_INTERRUPTED for answer in answers):
                return answers
        raise KernelError(None, f"{one.what}: it changed under {_DUMP_TRIES} attempts to read it")

    def passes(self, one: Request) -> Iterator[list[bytes]]:
        """Return what a DUMP request lists, piece by piece, for a list that may be left early.

        The list may have changed meanwhile. A socket left early is good for nothing more.
        """
        self._send((one,))
        while True:
            piece: list[bytes] = []
            for kind, flags, sequence, _, message in messages(self._receive(one)):
                if sequence != self._sequence:
                    continue
                if kind in (_ERROR, _DONE):
                    failure = _failure(one, flags, message)
                    if failure is not None and failure.errno not in one.tolerate:
                        raise failure
                    yield piece
                    return
                piece.append(message)
            yield piece

    def _run(self, requests: tuple[Request, ...]) -> tuple[list[list[bytes]], int]:
        """Return the answers to each, and how many failures were tolerated."""
        answers: list[list[bytes]] = [[] for _ in requests]
        failures: dict[int, KernelError] = {}
        waiting = {n for n, one in enumerate(requests) if one.flags & (ACK | DUMP)}
        first = self._send(requests)
        while waiting:
            for kind, flags, sequence, _, message in messages(self._receive(requests[0])):
                number = sequence - first
                if not 0 <= number < len(requests):
                    continue  # an answer that came too late for an earlier call
                if kind not in (_ERROR, _DONE):
                    answers[number].append(message)
                    continue
                waiting.discard(number)
                failure = _failure(requests[number], flags, message)
                if failure is not None:
                    failures[number] = failure
                    if not requests[number].flags & ACK:
                        waiting.clear()  # the batch was refused: no more need be said
        for number in sorted(failures):
            if failures[number].errno not in requests[number].tolerate:
                raise failures[number]
        return answers, len(failures)

    def _send(self, requests: tuple[Request, ...]) -> int:
        """Send; return the first request's sequence number."""
        first = self._sequence + 1
        data = bytearray()
        for one in requests:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            data += _HEADER.pack(
                HEADER + len(one.body), one.type, REQUEST | one.flags, self._sequence, 0
            )
            data += one.body
            data += bytes(-len(data) & 3)
        if not requests:
            return first
        self._make_room(max(2 * len(data), _ACK_ROOM * len(requests)))
        try:
            self._socket.send(data)
        except OSError as error:
            raise KernelError(error.errno, f"{requests[0].what}: {_words(error)}") from error
        return first

    def _receive(self, one: Request) -> bytes:
        try:
            return self._socket.recv(_RECEIVE)
        except OSError as error:
            raise KernelError(error.errno, f"{one.what}: {_words(error)}") from error

    def _make_room(self, size: int) -> None:
        """Let a datagram and its answers fit: a larger one would be EMSGSIZE, or ENOBUFS."""
        if size <= self._room:
            return
        self._room = size
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            with contextlib.suppress(PermissionError):  # what is to be done will be refused, too
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)


def _failure(one: Request, flags: int, message: bytes) -> KernelError | None:
    code: int = -struct.unpack_from("=i", message, HEADER)[0]
    if not code:
        return None
    return KernelError(code, f"{one.what}: {_text(flags, message) or os.strerror(code)}")


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {_TIMEOUT:g} s"
    return error.strerror or str(error)


def _text(flags: int, message: bytes) -> str:
    """Return the kernel's own words (extended ack), if it had any."""
    if not flags & _ACK_TLVS:
        return ""
    words = attributes(message, HEADER + 4 + HEADER).get(_ERROR_TEXT, b"")
    return words.rstrip(b"\0").decode(errors="replace")
