"""A server's answer, as far as a guest whose names are restricted may see it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from nexus_dns.policy import ADDRESSES
from nexus_rpc.addresses import may_be_given

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus_rpc.addresses import Network

MOST_ADDRESSES = 32
LEAST_TTL = 5
GREATEST_TTL = 3600
"""Seconds. What a guest is told is for how long it may reach the addresses."""

_MOST_RECORDS = 128
"""Of an answer: reading one takes up to 0.1 ms, and all guests wait meanwhile."""


class BadAnswer(Exception):
    """The server's answer cannot be read, or contradicts itself."""


@dataclass(frozen=True)
class Answer:
    """What the guest is given: a chain of names and the records at its end, or why there are none.

    `addresses` are those of the records. `struck`: how many addresses were taken out. `authority`
    is the zone's SOA record where there is no answer, by which the guest may remember that.
    """

    code: dns.rcode.Rcode
    records: tuple[dns.rrset.RRset, ...] = ()
    authority: tuple[dns.rrset.RRset, ...] = ()
    addresses: tuple[str, ...] = ()
    ttl: int = LEAST_TTL
    struck: int = 0


def read(wire: bytes, private_ok: Iterable[Network]) -> Answer:
    """Return what a restricted guest may see of the answer in `wire`. Raises BadAnswer.

    All records get the same TTL, the least of the chain between 5 and 3,600 s; records that the
    chain does not lead to are left out.
    """
    _, answers, authorities, additional = struct.unpack_from("!4H", wire, 4)
    if answers + authorities + additional > _MOST_RECORDS:
        raise BadAnswer
    try:
        message = dns.message.from_wire(wire)
        if not isinstance(message, dns.message.QueryMessage):
            raise BadAnswer
        chain = message.resolve_chaining()  # at most 16 names
    except (dns.exception.DNSException, ValueError) as error:
        raise BadAnswer from error
    ttl = min(max(chain.minimum_ttl, LEAST_TTL), GREATEST_TTL)
    names = tuple(_first(rrset, ttl) for rrset in chain.cnames)
    if chain.answer is None:
        soa = tuple(_first(each, ttl) for each in message.authority if _is_soa(each))
        return Answer(message.rcode(), names, soa[:1], ttl=ttl)
    kept, struck = _strike(chain.answer, ttl, tuple(private_ok))
    if struck and not kept:
        return Answer(dns.rcode.REFUSED, struck=struck)
    addresses = tuple(each.to_text() for each in kept) if kept.rdtype in ADDRESSES else ()
    return Answer(dns.rcode.NOERROR, (*names, kept), (), addresses, ttl, struck)


def _first(rrset: dns.rrset.RRset, ttl: int) -> dns.rrset.RRset:
    return dns.rrset.from_rdata(rrset.name, ttl, rrset[0])


def _is_soa(rrset: dns.rrset.RRset) -> bool:
    return rrset.rdtype == dns.rdatatype.SOA


def _strike(
    found: dns.rrset.RRset, ttl: int, private_ok: tuple[Network, ...]
) -> tuple[dns.rrset.RRset, int]:
    """Return the records that may be given, at most 32 addresses, and how many may not."""
    if found.rdtype not in ADDRESSES:
        return dns.rrset.from_rdata_list(found.name, ttl, list(found)), 0
    allowed = [each for each in found if may_be_given(ip_address(each.to_text()), private_ok)]
    struck = len(found) - len(allowed)
    kept = dns.rrset.RRset(found.name, found.rdclass, found.rdtype)
    kept.update_ttl(ttl)
    for each in allowed[:MOST_ADDRESSES]:
        kept.add(each)
    return kept, struck
