"""What callers may ask for: addresses, names, ports and numbers in requests, checked one by one.

Everything raises InvalidArgument, which names the field by its path, "policy.rules[3].cidr".
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

from nexus_netd.subnet import Subnet
from nexus_rpc.errors import invalid_field

if TYPE_CHECKING:
    from collections.abc import Collection

    from nexus_netd.model import Address, Cidr

FROM_HOST = "from-host"
MOST_SERVERS = 5
MOST_SEARCH = 6
LONGEST_DOMAIN = 253  # RFC 1035, without the dot of the root
LONGEST_BRIDGE = 12  # of Linux's 15; a network's next bridges are NAME-1 to NAME-99

_NETWORK = re.compile(r"[a-z][a-z0-9-]{0,30}")
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,12}")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_TOLD_NAME = re.compile(r"[!-~]{1,1012}")
_ULA = IPv6Network("fd00::/8")  # RFC 4193: fc00::/8 is not for anybody's use


def network_name(field: str, text: str) -> str:
    """Return a network's name."""
    if not _NETWORK.fullmatch(text):
        raise invalid_field(field, text, "1 to 31 of a-z, 0-9 and '-', beginning with a letter")
    return text


def bridge_name(field: str, text: str) -> str:
    """Return the name of a network's first bridge."""
    # "all" and "default" are what sysctls have in the place of a link.
    if not _BRIDGE.fullmatch(text) or text in {".", "..", "all", "default"}:
        raise invalid_field(
            field, text, f"1 to {LONGEST_BRIDGE} of letters, digits, '_', '.' and '-'"
        )
    if text.startswith("nexus"):
        raise invalid_field(field, text, "names that begin with 'nexus' are for TAPs; use another")
    return text


def subnet(field: str, text: str) -> Subnet:
    """Return a network's IPv4 subnet."""
    try:
        found = Subnet.parse(text)
    except ValueError as error:
        raise invalid_field(field, text, f"{error}; write it as '172.16.0.0/12'") from None
    network = found.network
    if network.is_multicast or network.is_loopback or network.is_link_local or network.is_reserved:
        raise invalid_field(field, text, "addresses that hosts may have (RFC 6890)")
    return found


def ipv6_subnet(field: str, text: str) -> IPv6Network:
    """Return a network's IPv6 subnet."""
    expected = "a /64 of unique local addresses, 'fd6e:6578:7573::/64' (RFC 4193)"
    try:
        found = IPv6Network(text)
    except ValueError as error:
        raise invalid_field(field, text, f"{error}; {expected}") from None
    if "%" in text or found.prefixlen != 64 or not found.subnet_of(_ULA):
        raise invalid_field(field, text, expected)
    return found


def ipv4(field: str, text: str) -> IPv4Address:
    """Return an IPv4 address."""
    try:
        return IPv4Address(text)
    except ValueError:
        raise invalid_field(field, text, "an IPv4 address without a prefix") from None


def address(field: str, text: str) -> Address:
    """Return an address of either version, without a scope."""
    try:
        found = ip_address(text)
    except ValueError:
        raise invalid_field(field, text, "an IPv4 or IPv6 address") from None
    if isinstance(found, IPv6Address) and (found.scope_id or found.ipv4_mapped):
        raise invalid_field(field, text, "an address without a scope, and IPv4 as such")
    return found


def cidr(field: str, text: str) -> Cidr:
    """Return a range of addresses, or a single one."""
    if "%" in text:
        raise invalid_field(field, text, "addresses without a scope")
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = str(ip_interface(text).network)
    except ValueError:
        raise invalid_field(
            field, text, "addresses as '192.0.2.0/24' or '2001:db8::/32', or a single one"
        ) from None
    raise invalid_field(field, text, f"host bits must be 0; {meant} contains it")


def domain(field: str, text: str, *, pattern: bool) -> str:
    """Return a domain name in lower case; with `pattern`, "*." may come first."""
    if not text.isascii():
        raise invalid_field(
            field, text, "write a name beyond ASCII as DNS has it, in punycode ('xn--...')"
        )
    name = text.lower()
    labels = (name[2:] if pattern and name.startswith("*.") else name).split(".")
    if "*" in name and "*" in "".join(labels):
        expected = "'*.' may stand first, for all names below" if pattern else "no '*'"
        raise invalid_field(field, text, expected)
    if len(name) > LONGEST_DOMAIN:
        raise invalid_field(field, text, f"at most {LONGEST_DOMAIN} characters (RFC 1035)")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise invalid_field(
            field,
            text,
            "labels of 1 to 63 letters, digits, '-' and '_', joined by dots, none at the end",
        )
    if labels[-1].isdigit():
        raise invalid_field(field, text, "a name; write an address as a cidr")
    return name


def is_told_name(text: str) -> bool:
    """Whether a resolver may say of this that a guest asked for it.

    It is what DNS's master files would have (RFC 1035, 5.1): an octet that is not printable is
    "\\ddd", so that a name has up to four times its 253 characters.
    """
    return _TOLD_NAME.fullmatch(text) is not None


def port(field: str, number: int) -> int:
    """Return a port of TCP or UDP."""
    if not 1 <= number <= 65_535:
        raise invalid_field(field, number, "1 to 65,535")
    return number


def servers(field: str, texts: Collection[str]) -> tuple[str, ...]:
    """Return DNS servers: addresses, or only "from-host"; none is none."""
    if list(texts) == [FROM_HOST]:
        return (FROM_HOST,)
    if len(texts) > MOST_SERVERS:
        raise invalid_field(field, list(texts), f"at most {MOST_SERVERS} servers")
    found = []
    for number, text in enumerate(texts):
        where = f"{field}[{number}]"
        if text == FROM_HOST:
            raise invalid_field(where, text, f"{FROM_HOST!r} stands alone")
        server = address(where, text)
        if server.is_unspecified or server.is_multicast:
            raise invalid_field(where, text, "the address of one server")
        found.append(str(server))
    return tuple(found)


def search(field: str, texts: Collection[str]) -> tuple[str, ...]:
    """Return search domains."""
    if len(texts) > MOST_SEARCH:
        raise invalid_field(field, list(texts), f"at most {MOST_SEARCH} domains")
    return tuple(domain(f"{field}[{n}]", text, pattern=False) for n, text in enumerate(texts))
