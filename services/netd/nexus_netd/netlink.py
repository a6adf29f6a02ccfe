"""One netlink socket: several requests in one message to the kernel, all answers within a time.

pyroute2 encodes and decodes; the socket is our own, for three reasons. rtnetlink does its work
inside sendmsg(2) (removing a link waits 20 ms for RCU), which would hold up an event loop, so it
runs on a thread. pyroute2's batches wait for ever when a whole nftables batch is refused. And an
answer that never comes must be an error, not a hang.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nexus_netd.kernel import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyroute2.netlink import nlmsg

# linux/netlink.h
REQUEST, ACK, DUMP = 0x001, 0x004, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_DUMP_INTERRUPTED = 0x010
_ERROR, _DONE = 2, 3
_ACK_TLVS = 0x200
_ERROR_TEXT = 1
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_HEADER = struct.Struct("=IHHII")

_TIMEOUT = 5.0
_RECEIVE = 1 << 16
_DUMP_TRIES = 10


@dataclass(frozen=True)
class Request:
    """One message. `what` names it in errors; an errno in `tolerate` is as good as success."""

    what: str
    type: int
    flags: int
    message: nlmsg
    tolerate: frozenset[int] = field(default=frozenset())


def request(
    what: str,
    kind: int,
    message: nlmsg,
    *,
    flags: int = ACK,
    tolerate: tuple[int, ...] = (),
    attrs: list[tuple[Any, ...]] | None = None,
    **fields: int,
) -> Request:
    """Return a request with the message's fields and attributes filled in.

    A field of the message that is itself called flags is given as `flags_`.
    """
    for name, value in fields.items():
        message[name.removesuffix("_")] = value
    message["attrs"] = attrs or []
    return Request(what, kind, REQUEST | flags, message, frozenset(tolerate))


class Netlink:
    """A socket of one netlink protocol. For one thread; blocks for 5 s at most."""

    def __init__(self, protocol: int, answers: Mapping[int, type[nlmsg]]) -> None:
        self._answers = answers
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.settimeout(_TIMEOUT)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def run(self, *requests: Request) -> list[list[nlmsg]]:
        """Send the requests as one datagram and return the answers to each.

        The kernel takes them in order and goes on after a failure (an nftables batch is undone
        as a whole). Raises KernelError for the first that failed.
        """
        if not requests:
            return []
        first = self._sequence + 1
        data = bytearray()
        for one in requests:
            self._sequence += 1
            header = one.message["header"]
            header["type"], header["flags"] = one.type, one.flags
            header["sequence_number"] = self._sequence
            one.message.encode()
            data += one.message.data
        try:
            self._socket.send(data)
            return self._collect(first, requests)
        except TimeoutError as error:
            raise KernelError(None, f"{requests[0].what}: no answer in {_TIMEOUT:g} s") from error
        except OSError as error:
            raise KernelError(error.errno, f"{requests[0].what}: {error.strerror}") from error

    def dump(self, one: Request) -> list[nlmsg]:
        """Return everything that a DUMP request lists, from one unbroken pass."""
        for _ in range(_DUMP_TRIES):
            answers = self.run(one)[0]
            if not any(answer["header"]["flags"] & _DUMP_INTERRUPTED for answer in answers):
                return answers
        raise KernelError(None, f"{one.what}: it changed under {_DUMP_TRIES} attempts to read it")

    def _collect(self, first: int, requests: tuple[Request, ...]) -> list[list[nlmsg]]:
        answers: list[list[nlmsg]] = [[] for _ in requests]
        waiting = {n for n, one in enumerate(requests) if one.flags & (ACK | DUMP)}
        failures: dict[int, KernelError] = {}
        while waiting:
            for kind, flags, sequence, body in _messages(self._socket.recv(_RECEIVE)):
                number = sequence - first
                if not 0 <= number < len(requests):
                    continue  # an answer that came too late for an earlier call
                if kind not in (_ERROR, _DONE):
                    answers[number].append(self._decode(kind, body))
                    continue
                waiting.discard(number)
                code = -struct.unpack_from("=i", body, _HEADER.size)[0]
                if code and code not in requests[number].tolerate:
                    text = _text(flags, body) or os.strerror(code)
                    failures[number] = KernelError(code, f"{requests[number].what}: {text}")
                    if not requests[number].flags & ACK:
                        waiting.clear()  # the batch itself was refused: no more will be said
        if failures:
            raise failures[min(failures)]
        return answers

    def _decode(self, kind: int, body: bytes) -> nlmsg:
        message = self._answers[kind](body)
        message.decode()
        return message


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset : offset + length]
        offset += (length + 3) & ~3


def _text(flags: int, body: bytes) -> str:
    """Return the kernel's own words (extended ack), if it had any."""
    offset = _HEADER.size + 4 + _HEADER.size
    while flags & _ACK_TLVS and offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == _ERROR_TEXT:
            return body[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += max((length + 3) & ~3, 4)
    return ""
