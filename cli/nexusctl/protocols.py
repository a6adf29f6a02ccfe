"""Protocols and ports of IP as people write them: "tcp", "443", "80-90"."""

from __future__ import annotations

import re

from nexus.netd.v1 import netd_pb2
from nexusctl.failure import USAGE, Failure

WORDS: dict[str, netd_pb2.Protocol.ValueType] = {
    "any": netd_pb2.PROTOCOL_UNSPECIFIED,
    "tcp": netd_pb2.PROTOCOL_TCP,
    "udp": netd_pb2.PROTOCOL_UDP,
    "icmp": netd_pb2.PROTOCOL_ICMP,
}
_BY_NUMBER: dict[int, str] = {number: word for word, number in WORDS.items()}
_HIGHEST = 65535


def bad(what: str, text: str, expected: str) -> Failure:
    """Return the failure that says what `text` should have been."""
    return Failure(f"{what} is {text!r}: {expected}", "", USAGE)


def word(protocol: int) -> str:
    """Return the protocol's word; one that this release does not know is told as its number."""
    return _BY_NUMBER.get(protocol, str(protocol))


def cut_protocol(text: str) -> tuple[str, str]:
    """Return "443" and "tcp" of "443/tcp"; the second is "" where there is none.

    What follows a slash and begins with a digit is a prefix length, and stays.
    """
    rest, slash, protocol = text.rpartition("/")
    if not slash or protocol[:1].isdigit():
        return text, ""
    return rest, protocol.lower()


def port(what: str, text: str) -> int:
    """Return a port. Raises Failure."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < number <= _HIGHEST:
        raise bad(what, text, "a port is 1 to 65535")
    return number


def port_with_protocol(what: str, text: str) -> tuple[int, str]:
    """Return port and protocol of "53/udp"; tcp where none is given. Raises Failure."""
    digits, protocol = cut_protocol(text)
    if protocol not in ("", "tcp", "udp"):
        raise bad(what, text, "tcp or udp, such as 80 or 53/udp")
    return port(what, digits), protocol or "tcp"


def split_host(what: str, text: str) -> tuple[str, str]:
    """Return host and port of "host:port", "[v6]:port" or "host"; the port may be "".

    Raises Failure.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not re.match(":.", rest)):
            raise bad(what, text, "an IPv6 address in brackets, [2001:db8::1]:443")
        return host, rest[1:]
    if text.count(":") > 1:  # an IPv6 address on its own
        return text, ""
    host, colon, digits = text.partition(":")
    if colon and not digits:
        raise bad(what, text, "the port is missing after the colon")
    return host, digits


def join_host(host: str, ports: str) -> str:
    """Return what `split_host` takes apart."""
    if not ports:
        return host
    return f"[{host}]:{ports}" if ":" in host else f"{host}:{ports}"
