"""The attributes of nftables' expressions, and their form in netlink messages.

The numbers are those of linux/netfilter/nf_tables.h; numbers are big-endian in the messages.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nexus_netd.linux.netlink import attribute, attributes, nest, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nexus_netd.rules.ruleset import Expression

LIST_ELEMENT = 1
_NAME, _DATA = 1, 2
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2

_HEADER = struct.Struct("=HH")
_U16, _U32, _U64, _CODE_FORMAT = (
    struct.Struct(">H"),
    struct.Struct(">I"),
    struct.Struct(">Q"),
    struct.Struct(">i"),
)


def u8(kind: int, value: int) -> bytes:
    """Return an attribute with one byte."""
    return attribute(kind, bytes([value]))


def u16(kind: int, value: int) -> bytes:
    """Return an attribute with a number of 2 bytes."""
    return attribute(kind, _U16.pack(value))


def u32(kind: int, value: int) -> bytes:
    """Return an attribute with a number of 4 bytes."""
    return attribute(kind, _U32.pack(value))


def u64(kind: int, value: int) -> bytes:
    """Return an attribute with a number of 8 bytes."""
    return attribute(kind, _U64.pack(value))


def data(kind: int, value: bytes | tuple[int, str]) -> bytes:
    """Return an attribute with a value, or with a verdict: its code, and the chain it leads to."""
    if isinstance(value, bytes):
        return nest(kind, attribute(_VALUE, value))
    code, chain = value
    target = text(_CHAIN, chain) if chain else b""
    return nest(kind, nest(_VERDICT, attribute(_CODE, _CODE_FORMAT.pack(code)), target))


_EXPRESSIONS: dict[str, dict[str, tuple[int, Callable[[int, Any], bytes]]]] = {
    "bitwise": {
        "sreg": (1, u32),
        "dreg": (2, u32),
        "len": (3, u32),
        "mask": (4, data),
        "xor": (5, data),
    },
    "cmp": {"sreg": (1, u32), "op": (2, u32), "data": (3, data)},
    "connlimit": {"count": (1, u32), "flags": (2, u32)},
    "counter": {"bytes": (1, u64), "packets": (2, u64)},
    "ct": {"dreg": (1, u32), "key": (2, u32), "direction": (3, u8)},
    "fib": {"dreg": (1, u32), "result": (2, u32), "flags": (3, u32)},
    "immediate": {"dreg": (1, u32), "data": (2, data)},
    "limit": {
        "rate": (1, u64),
        "unit": (2, u64),
        "burst": (3, u32),
        "type": (4, u32),
        "flags": (5, u32),
    },
    "log": {"group": (1, u16), "prefix": (2, text), "snaplen": (3, u32)},
    "lookup": {"set": (1, text), "sreg": (2, u32), "dreg": (3, u32), "flags": (5, u32)},
    "masq": {},
    "meta": {"dreg": (1, u32), "key": (2, u32)},
    "nat": {"type": (1, u32), "family": (2, u32), "addr_min": (3, u32), "proto_min": (5, u32)},
    "payload": {"dreg": (1, u32), "base": (2, u32), "offset": (3, u32), "len": (4, u32)},
    "redir": {"proto_min": (1, u32)},
    "reject": {"type": (1, u32), "code": (2, u8)},
}

_STATES: dict[str, dict[int, str]] = {
    name: {kind: attribute for attribute, (kind, _) in _EXPRESSIONS[name].items()}
    for name in ("connlimit", "limit")
}
"""Expressions that elements have, but for counters, whose values are no part of what must be."""


@lru_cache(maxsize=4_096)  # rules and elements are made of the same few
def expression(kind: int, one: Expression) -> bytes:
    """Return an attribute with one expression."""
    name, arguments = one
    known = _EXPRESSIONS[name]
    encoded = []
    for argument, value in arguments:
        number, encode = known[argument]
        encoded.append(encode(number, value))
    return nest(kind, text(_NAME, name), nest(_DATA, *encoded))


def state(payload: bytes) -> Expression:
    """Read an element's expression; what counts up in it is left out."""
    found = attributes(payload)
    name = found[_NAME].rstrip(b"\0").decode()
    known = _STATES.get(name, {})
    return (
        name,
        tuple(
            (known[kind], int.from_bytes(value, "big"))
            for kind, value in attributes(found[_DATA]).items()
            if kind in known
        ),
    )


def counted(payload: bytes) -> int:
    """Return how many packets an expression counted; 0 where it is no counter."""
    found = attributes(payload)
    if found[_NAME] != b"counter\0":
        return 0
    return int.from_bytes(attributes(found[_DATA])[2], "big")


def value(payload: bytes) -> bytes | str:
    """Read a value; of a verdict, the chain that it leads to."""
    found = attributes(payload)
    if _VALUE in found:
        return found[_VALUE]
    return attributes(found[_VERDICT]).get(_CHAIN, b"").rstrip(b"\0").decode()


def listed(payload: bytes) -> Iterator[bytes]:
    """Return what the attributes of a list hold, one after the other."""
    offset, end = 0, len(payload)
    while offset + 4 <= end:
        length, _ = _HEADER.unpack_from(payload, offset)
        if length < 4:
            return
        yield payload[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def comment(kind: int, words: str) -> bytes:
    """Return an attribute with a comment as nft(8) keeps it in userdata (libnftnl, udata.h)."""
    encoded = words.encode() + b"\0"
    return attribute(kind, bytes([0, len(encoded)]) + encoded)


def commented(userdata: bytes) -> str:
    """Read a comment; empty where there is none."""
    if len(userdata) < 2 or userdata[0]:
        return ""
    return userdata[2 : 2 + userdata[1]].rstrip(b"\0").decode(errors="replace")
