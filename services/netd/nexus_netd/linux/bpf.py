"""Classic BPF on netlink sockets: what need not be told is dropped before it is queued.

A program sees one datagram, which begins with a message's header (linux/filter.h, netlink.h).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD_HALF, _LOAD_WORD, _LOAD_BYTE = 0x28, 0x20, 0x30
_JUMP_EQUAL, _RETURN = 0x15, 0x06
_TYPE, _PORT, _FAMILY = 4, 12, 16
_KEEP, _DROP = 0xFFFFFFFF, 0


def _swap(value: int, length: int) -> int:
    """Return what a load of a number in the host's order gives: loads are big-endian."""
    return int.from_bytes(value.to_bytes(length, sys.byteorder), "big")


def only(kind: int, family: int) -> bytes:
    """Let through messages of one type and one family."""
    return b"".join(
        (
            _INSTRUCTION.pack(_LOAD_HALF, 0, 0, _TYPE),
            _INSTRUCTION.pack(_JUMP_EQUAL, 0, 3, _swap(kind, 2)),
            _INSTRUCTION.pack(_LOAD_BYTE, 0, 0, _FAMILY),
            _INSTRUCTION.pack(_JUMP_EQUAL, 0, 1, family),
            _INSTRUCTION.pack(_RETURN, 0, 0, _KEEP),
            _INSTRUCTION.pack(_RETURN, 0, 0, _DROP),
        )
    )


def not_from(ports: Collection[int]) -> bytes:
    """Let through messages that tell of nothing that these sockets have changed."""
    jumps = [
        _INSTRUCTION.pack(_JUMP_EQUAL, len(ports) - number, 0, _swap(port & 0xFFFFFFFF, 4))
        for number, port in enumerate(ports)
    ]
    return b"".join(
        (
            _INSTRUCTION.pack(_LOAD_WORD, 0, 0, _PORT),
            *jumps,
            _INSTRUCTION.pack(_RETURN, 0, 0, _KEEP),
            _INSTRUCTION.pack(_RETURN, 0, 0, _DROP),
        )
    )


def attach(to: socket.socket, program: bytes) -> None:
    """Attach a program to a socket. Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    # struct sock_fprog: a count, and a pointer to what is copied now.
    to.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", count, ctypes.addressof(code))
    )
