"""Answers as they go out to a client."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import dns.edns
import dns.message
import dns.rcode
import dns.rrset
from dns.flags import CD, QR, RA, RD, TC

from nexus_dns.query import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus_dns.query import Query

_RCODE = 0x000F
"""What is kept of a server's flags. AD, for one, is a claim that nobody here has checked."""

_OPT = struct.pack("!BHHIH", 0, 41, LARGEST, 0, 0)
_OPT_DO = struct.pack("!BHHIH", 0, 41, LARGEST, 0x8000, 0)


class Cut(ValueError):
    """A server's answer ends in the middle of a record."""


def build(
    query: Query,
    code: dns.rcode.Rcode,
    records: Iterable[dns.rrset.RRset] = (),
    authority: Iterable[dns.rrset.RRset] = (),
    why: str = "",
) -> bytes:
    """Return an answer to `query`, truncated where it has no room.

    `why`, in words, goes to clients that speak EDNS, as the extended error Prohibited (RFC 8914).
    """
    message = dns.message.make_response(
        query.message, recursion_available=True, our_payload=LARGEST, pad=0
    )
    message.set_rcode(code)
    if why and query.message.edns >= 0:
        reason = dns.edns.EDEOption(dns.edns.EDECode.PROHIBITED, why)
        message.use_edns(payload=LARGEST, options=[reason])
    message.answer.extend(records)
    message.authority.extend(authority)
    return message.to_wire(max_size=query.room, prefer_truncation=True)


def relay(query: Query, wire: bytes) -> bytes:
    """Return a server's answer as the answer to `query`, without its additional section.

    Records are not looked into: reading 16 KiB of hostile names takes a tenth of a second. The
    caller has compared the question. Raises Cut.
    """
    _, flags, _, answers, authorities, _ = struct.unpack_from("!6H", wire)
    asked = query.name.to_wire() or b""  # as the client wrote it; servers may change the case
    end = question_end = 12 + len(asked) + 4
    for _ in range(answers + authorities):
        end = _record_end(wire, end)
    flags = flags & _RCODE | query.message.flags & (RD | CD) | QR | RA
    opt = b"" if query.message.edns < 0 else _OPT_DO if query.dnssec else _OPT
    if end + len(opt) > query.room:
        flags, answers, authorities, end = flags | TC, 0, 0, question_end
    counts = (1, answers, authorities, 1 if opt else 0)
    header = struct.pack("!6H", query.message.id, flags, *counts)
    return header + asked + wire[12 + len(asked) : end] + opt


def _name_end(wire: bytes, at: int) -> int:
    """Return where the name that begins at `at` ends; a pointer is its end (RFC 1035, 4.1.4)."""
    while at < len(wire):
        length = wire[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    raise Cut


def _record_end(wire: bytes, at: int) -> int:
    at = _name_end(wire, at)
    if at + 10 > len(wire):
        raise Cut
    end = at + 10 + struct.unpack_from("!H", wire, at + 8)[0]
    if end > len(wire):
        raise Cut
    return int(end)
