"""Parts that rules are made of: what is looked at in a packet, how it is compared, what is done.

An expression that cannot be evaluated, as when a packet is too short, ends its rule without a
verdict, and the next rule is looked at. So a rule that refuses must not depend on a look: rules say
what is let through, and a rule that matches anything comes last.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import chain as flat
from typing import TYPE_CHECKING, Any

from nexus_netd.rules.ruleset import Expression, Rule, number

if TYPE_CHECKING:
    from collections.abc import Callable

    from nexus_netd.model import Cidr

Expressions = tuple[Expression, ...]

# linux/netfilter/nf_tables.h
_FIRST = 8  # NFT_REG32_00: registers of 4 bytes; there are 16
_VERDICT = 0
_EQUAL, _DIFFERS, _AT_MOST, _AT_LEAST = 0, 1, 3, 5
_LINK_HEADER, _NETWORK_HEADER, _TRANSPORT_HEADER = 0, 1, 2
_ACCEPT, _DROP, _JUMP, _GOTO = 1, 0, -3, -4
_INVERTED = 1
_DNAT = 1
_TCP_RESET, _ICMPX, _ADMIN_PROHIBITED = 1, 2, 3
_ADDRESS_TYPE, _OF_DESTINATION = 3, 2
_LOCAL = 2  # RTN_LOCAL
_SNAPLEN = 128
"""Bytes of a logged packet: its headers, whatever extension headers there are."""


@dataclass(frozen=True)
class Field:
    """Something of a packet, or that the kernel knows of it; `length` in bytes."""

    expression: str
    arguments: tuple[tuple[str, Any], ...]
    length: int

    def load(self, register: int = _FIRST) -> Expression:
        """Put it into a register."""
        return (self.expression, (("dreg", register), *self.arguments))


def _meta(key: int, length: int) -> Field:
    return Field("meta", (("key", key),), length)


def _payload(base: int, offset: int, length: int) -> Field:
    return Field("payload", (("base", base), ("offset", offset), ("len", length)), length)


def link(offset: int, length: int) -> Field:
    """Return a part of the Ethernet header as it was on the wire, VLAN tag included."""
    return _payload(_LINK_HEADER, offset, length)


def network(offset: int, length: int) -> Field:
    """Return a part of the frame's payload, from where IP or ARP begins."""
    return _payload(_NETWORK_HEADER, offset, length)


def transport(offset: int, length: int) -> Field:
    """Return a part of the packet from where TCP, UDP or ICMP begins; not there in fragments."""
    return _payload(_TRANSPORT_HEADER, offset, length)


IIFNAME, OIFNAME = _meta(6, 16), _meta(7, 16)
NFPROTO, L4PROTO = _meta(15, 1), _meta(16, 1)
CT_STATE = Field("ct", (("key", 0),), 4)
CT_STATUS = Field("ct", (("key", 2),), 4)
ADDRESS_TYPE = Field("fib", (("result", _ADDRESS_TYPE), ("flags", _OF_DESTINATION)), 4)
DESTINATION_PORT = transport(2, 2)
ICMP_TYPE = transport(0, 1)
TCP, UDP = b"\x06", b"\x11"


@dataclass(frozen=True)
class Version:
    """A version of IP: where its addresses are, and its ICMP's number and types."""

    number: int
    protocol: bytes  # linux/netfilter.h, NFPROTO_*
    source: Field
    destination: Field
    origins: tuple[Field, Field]  # of the connection: who opened it, and who answers
    icmp: bytes
    echo_request: bytes
    redirect: bytes
    loopback: tuple[bytes, bytes]  # mask and address

    @property
    def this(self) -> Expressions:
        """Match packets of this version."""
        return equals(NFPROTO, self.protocol)

    def __str__(self) -> str:
        return str(self.number)


def _origins(key: int, length: int) -> tuple[Field, Field]:
    original, reply = 0, 1
    return (
        Field("ct", (("key", key), ("direction", original)), length),
        Field("ct", (("key", key), ("direction", reply)), length),
    )


IP4 = Version(
    4,
    b"\x02",
    network(12, 4),
    network(16, 4),
    _origins(19, 4),
    icmp=b"\x01",
    echo_request=b"\x08",
    redirect=b"\x05",
    loopback=(b"\xff\0\0\0", IPv4Address("127.0.0.0").packed),
)
IP6 = Version(
    6,
    b"\x0a",
    network(8, 16),
    network(24, 16),
    _origins(21, 16),
    icmp=b"\x3a",
    echo_request=b"\x80",
    redirect=b"\x89",
    loopback=(b"\xff" * 16, IPv6Address("::1").packed),
)
VERSIONS = (IP4, IP6)


def _compare(operation: int, value: bytes) -> Expression:
    return ("cmp", (("sreg", _FIRST), ("op", operation), ("data", value)))


def equals(field: Field, value: bytes) -> Expressions:
    """Match if the field has this value."""
    return (field.load(), _compare(_EQUAL, value))


def differs(field: Field, value: bytes) -> Expressions:
    """Match if the field is there and has another value."""
    return (field.load(), _compare(_DIFFERS, value))


def between(field: Field, low: bytes, high: bytes) -> Expressions:
    """Match if the field's value is `low`, `high` or between, in the order of bytes."""
    if low == high:
        return equals(field, low)
    return (field.load(), _compare(_AT_LEAST, low), _compare(_AT_MOST, high))


def _mask(mask: bytes) -> Expression:
    return (
        "bitwise",
        (
            ("sreg", _FIRST),
            ("dreg", _FIRST),
            ("len", len(mask)),
            ("mask", mask),
            ("xor", bytes(len(mask))),
        ),
    )


def masked(field: Field, mask: bytes, value: bytes) -> Expressions:
    """Match if the bits of `mask` have this value."""
    return (field.load(), _mask(mask), _compare(_EQUAL, value))


def any_bit(field: Field, bits: bytes) -> Expressions:
    """Match if one of the bits is set."""
    return (field.load(), _mask(bits), _compare(_DIFFERS, bytes(len(bits))))


def within(field: Field, cidr: Cidr) -> Expressions:
    """Match if the address, of the CIDR's own IP version, lies in it."""
    if cidr.prefixlen == cidr.max_prefixlen:
        return equals(field, cidr.network_address.packed)
    if not cidr.prefixlen:
        return ()
    return masked(field, cidr.netmask.packed, cidr.network_address.packed)


def tap(field: Field) -> Expressions:
    """Match if the interface is called as our TAPs are: "nexus", then a digit."""
    return between(field, b"nexus0".ljust(16, b"\0"), b"nexus9".ljust(16, b"z"))


def among(name: str, *fields: Field, value: bytes = b"") -> Expressions:
    """Match if the fields together, and a fixed value after them, are in the set.

    What the element has of its own is evaluated: a counter counts, a limit may end the rule.
    """
    return _lookup(name, fields, value, ())


def among_not(name: str, *fields: Field) -> Expressions:
    """Match if the fields are there, and together not in the set."""
    return _lookup(name, fields, b"", (("flags", _INVERTED),))


def mapped(name: str, *fields: Field) -> Expressions:
    """Match if the fields together are in the map; its value is in the first register then."""
    return _lookup(name, fields, b"", (("dreg", _FIRST),))


def chosen(numbers: str, field: Field, chains: str) -> Expressions:
    """Go to the chain that one map has for the number that another has for the field.

    The number is the second of two that the first map has, and comes to lie in a register that
    held the field once more: nft(8) 1.0.6 dies of an assertion, whatever it was to list, when a
    look-up's key is another one's value. So it takes the field for the key.
    """
    after = _FIRST + (field.length + 3) // 4
    return (
        field.load(),
        field.load(after),
        ("lookup", (("set", numbers), ("sreg", _FIRST), ("dreg", after - 1))),
        ("lookup", (("set", chains), ("sreg", after), ("dreg", _VERDICT))),
    )


def _lookup(
    name: str, fields: tuple[Field, ...], value: bytes, more: tuple[tuple[str, int], ...]
) -> Expressions:
    loads, register = [], _FIRST
    for field in fields:
        loads.append(field.load(register))
        register += (field.length + 3) // 4
    if value:
        loads.append(("immediate", (("dreg", register), ("data", value))))
    return (*loads, ("lookup", (("set", name), ("sreg", _FIRST), *more)))


def _verdict(code: int, chain: str = "") -> Expressions:
    return (("immediate", (("dreg", _VERDICT), ("data", (code, chain)))),)


ACCEPT, DROP = _verdict(_ACCEPT), _verdict(_DROP)


def goto(chain: str) -> Expressions:
    """Go on in another chain, for good."""
    return _verdict(_GOTO, chain)


def jump(chain: str) -> Expressions:
    """Go on in another chain, and come back from its end."""
    return _verdict(_JUMP, chain)


RESET: Expressions = (("reject", (("type", _TCP_RESET), ("code", 0))),)
PROHIBITED: Expressions = (("reject", (("type", _ICMPX), ("code", _ADMIN_PROHIBITED))),)
MASQUERADE: Expressions = (("masq", ()),)
TO_LOCAL: Expressions = equals(ADDRESS_TYPE, number(_LOCAL))


def log(group: int, prefix: str) -> Expressions:
    """Tell those who listen to the NFLOG group, with the packet's first 128 bytes."""
    return (("log", (("group", group), ("prefix", prefix), ("snaplen", _SNAPLEN))),)


def redirect(port: int) -> Expressions:
    """Lead it to a port of the interface that it came in by."""
    return (
        ("immediate", (("dreg", _FIRST), ("data", port.to_bytes(2, "big")))),
        ("redir", (("proto_min", _FIRST),)),
    )


def forward_to_mapped(version: Version) -> Expressions:
    """Lead it to the address and port that a map gave."""
    return (
        (
            "nat",
            (
                ("type", _DNAT),
                ("family", version.protocol[0]),
                ("addr_min", _FIRST),
                ("proto_min", _FIRST + (version.destination.length + 3) // 4),
            ),
        ),
    )


def rule(chain: str, comment: str, *parts: Expressions) -> Rule:
    """Return a rule: one part after the other must match, the last says what is done."""
    return Rule(chain, comment, tuple(flat.from_iterable(parts)))


def both(
    chain: str, comment: str, parts: Callable[[Version], tuple[Expressions, ...]]
) -> tuple[Rule, ...]:
    """Return a rule for each version of IP."""
    return tuple(
        rule(chain, f"{comment}, IPv{version}", version.this, *parts(version))
        for version in VERSIONS
    )
