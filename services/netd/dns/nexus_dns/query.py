"""A query as it comes in: taken apart, or refused for its form."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from nexus_dns import names

if TYPE_CHECKING:
    from nexus_dns.names import Labels

LARGEST = 1232
"""Bytes of the largest query, and of the largest UDP message either way: it fits an IPv6 packet of
1,280 bytes, so it is never fragmented."""

_SMALLEST_UDP = 512
_TCP = 65_535
_QR = 0x80
_RD = 0x01


class Malformed(Exception):
    """No query. `reply` is what is to be answered, None for nothing."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__()
        self.reply = reply


@dataclass(frozen=True)
class Query:
    """A query. `by_tcp`: how it came."""

    message: dns.message.Message
    by_tcp: bool

    @property
    def name(self) -> dns.name.Name:
        """The name, as it was written."""
        return self.message.question[0].name

    @property
    def kind(self) -> dns.rdatatype.RdataType:
        """The type of the records that are asked for."""
        return self.message.question[0].rdtype

    @property
    def is_internet(self) -> bool:
        """Whether the class is IN."""
        return self.message.question[0].rdclass == dns.rdataclass.IN

    @cached_property
    def labels(self) -> Labels:
        """The name, to be compared."""
        return names.labels(self.name)

    @cached_property
    def domain(self) -> str:
        """The name for people, in lower case and without the last dot."""
        return self.name.canonicalize().to_text(omit_final_dot=True)

    @property
    def room(self) -> int:
        """Bytes that the answer may have (RFC 6891, section 6.2.5)."""
        if self.by_tcp:
            return _TCP
        if self.message.edns < 0:
            return _SMALLEST_UDP
        return min(max(self.message.payload, _SMALLEST_UDP), LARGEST)

    @property
    def dnssec(self) -> bool:
        """Whether signatures are asked for (DO)."""
        return bool(self.message.ednsflags & dns.flags.DO)


def parse(wire: bytes, *, by_tcp: bool) -> Query:
    """Return the query in `wire`. Raises Malformed, and nothing else whatever the bytes are."""
    if len(wire) < 12 or wire[2] & _QR:
        raise Malformed(None)  # answering answers would make a loop
    if wire[2] & 0x78:
        raise Malformed(_bare(wire, dns.rcode.NOTIMP))
    questions, answers, authorities, additional = struct.unpack_from("!4H", wire, 4)
    # OPT is the one record that a query may carry; a signature (TSIG) would be for somebody else.
    if len(wire) > LARGEST or questions != 1 or answers or authorities or additional > 1:
        raise Malformed(_bare(wire, dns.rcode.FORMERR))
    try:
        message = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError):
        raise Malformed(_bare(wire, dns.rcode.FORMERR)) from None
    if not message.question:
        raise Malformed(_bare(wire, dns.rcode.FORMERR))
    return Query(message, by_tcp)


def _bare(wire: bytes, code: dns.rcode.Rcode) -> bytes:
    """Return an answer of a header only: the question could not be read."""
    (number,) = struct.unpack_from("!H", wire)
    return struct.pack("!HBBQ", number, _QR | wire[2] & (0x78 | _RD), code, 0)
