"""rtnetlink's messages about addresses, routes and neighbours.

Each guest has a route of its own to its bridge, and a fixed neighbour entry; the subnet as a whole
is unreachable, so that a bridge holds no more than its guests, and what nobody has goes nowhere.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from nexus_netd.linux.netlink import ACK, CREATE, DUMP, REPLACE, Request, attribute, u32
from nexus_netd.linux.rtnl import (
    DELNEIGH,
    GETNEIGH,
    NDA_DST,
    NDA_LLADDR,
    NEIGHBOUR,
    NEWNEIGH,
    NUD_PERMANENT,
    mac_bytes,
)

if TYPE_CHECKING:
    from nexus_netd.model import Address, Cidr

NEWADDR, DELADDR, _GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, _GETROUTE = 24, 25, 26

ADDRESS = struct.Struct("=BBBBi")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, two prefix lengths, TOS, table, protocol, scope, type, flags."""

_NDA_IFINDEX = 8

PROTOCOL = 110
"""Who made our routes; free in iproute2's rt_protos."""

RTA_DST, RTA_OIF, RTA_MULTIPATH = 1, 4, 9
_RTA_PRIORITY, _RTA_PREFSRC = 6, 7
IFA_ADDRESS, IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NODAD, _NOPREFIXROUTE = 0x02, 0x200
_MAIN = 254  # RT_TABLE_MAIN
UNICAST, LOCAL, UNREACHABLE = 1, 2, 7
_UNIVERSE, _LINK = 0, 253  # RT_SCOPE_*
_STATIC_METRIC = 4_096
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV})
_FIB_MATCH = 0x2000


def family(version: int) -> int:
    """Return the address family of an IP version."""
    return socket.AF_INET if version == 4 else socket.AF_INET6


def list_addresses(version: int, index: int = 0) -> Request:
    """Ask for all addresses, or those of one link."""
    return Request(
        f"list IPv{version} addresses",
        _GETADDR,
        DUMP,
        ADDRESS.pack(family(version), 0, 0, 0, index),
        frozenset({errno.ENODEV}),
    )


def new_address(index: int, bridge: str, address: Address) -> Request:
    """Give a bridge an address, to be used at once."""
    flags = 0 if address.version == 4 else _NODAD | _NOPREFIXROUTE
    return Request(
        f"give {bridge} the address {address}",
        NEWADDR,
        ACK | CREATE | REPLACE,
        _address(index, address, address.max_prefixlen) + u32(_IFA_FLAGS, flags),
    )


def delete_address(index: int, bridge: str, address: Address, length: int) -> Request:
    """Take an address with that prefix length from a bridge; one it has not is no failure."""
    return Request(
        f"take the address {address}/{length} from {bridge}",
        DELADDR,
        ACK,
        _address(index, address, length),
        frozenset({errno.EADDRNOTAVAIL}),
    )


def list_routes(version: int, *, ours: bool = False, kind: int = 0) -> Request:
    """Ask for the routes of all tables, or (`ours`) for those of ours, of one kind."""
    table, protocol = (_MAIN, PROTOCOL) if ours else (0, 0)
    return Request(
        f"list IPv{version} routes",
        _GETROUTE,
        DUMP,
        ROUTE.pack(family(version), 0, 0, 0, table, protocol, 0, kind, 0),
        # A family that the kernel does not have, or a table that has never been used.
        frozenset({errno.EOPNOTSUPP, errno.ENOENT}),
    )


def find_route(address: Address) -> Request:
    """Ask by which route packets go to an address; none is no failure."""
    return Request(
        f"find the route to {address}",
        _GETROUTE,
        ACK,
        ROUTE.pack(family(address.version), address.max_prefixlen, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
        + attribute(RTA_DST, address.packed),
        frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}),
    )


def route(bridge: int, address: Address, gateway: Address, mac: str) -> list[Request]:
    """Route an address to its bridge, and fix its MAC: no guest answers for another."""
    return [
        Request(
            f"fix {address} to {mac}",
            NEWNEIGH,
            ACK | CREATE | REPLACE,
            NEIGHBOUR.pack(family(address.version), bridge, NUD_PERMANENT, 0, 0)
            + attribute(NDA_DST, address.packed)
            + attribute(NDA_LLADDR, mac_bytes(mac)),
        ),
        Request(
            f"route {address}",
            NEWROUTE,
            ACK | CREATE | REPLACE,
            _host(address, UNICAST)
            + u32(RTA_OIF, bridge)
            + attribute(_RTA_PREFSRC, gateway.packed),
        ),
    ]


def unroute(bridge: int, address: Address) -> list[Request]:
    """Undo `route`; nothing to undo is no failure."""
    return [
        Request(
            f"unroute {address}",
            DELROUTE,
            ACK,
            _host(address, UNICAST) + u32(RTA_OIF, bridge),
            _GONE,
        ),
        Request(
            f"forget the MAC of {address}",
            DELNEIGH,
            ACK,
            NEIGHBOUR.pack(family(address.version), bridge, 0, 0, 0)
            + attribute(NDA_DST, address.packed),
            _GONE,
        ),
    ]


def new_subnet(subnet: Cidr) -> Request:
    """Make a subnet unreachable, but for the routes into it."""
    return Request(f"make {subnet} unreachable", NEWROUTE, ACK | CREATE | REPLACE, _whole(subnet))


def delete_subnet(subnet: Cidr) -> Request:
    """Undo `new_subnet`; nothing to undo is no failure."""
    return Request(f"forget {subnet}", DELROUTE, ACK, _whole(subnet), _GONE)


def list_neighbours(version: int, bridge: int = 0) -> Request:
    """Ask for all neighbours, or those on one link."""
    narrow = u32(_NDA_IFINDEX, bridge) if bridge else b""
    return Request(
        f"list IPv{version} neighbours",
        GETNEIGH,
        DUMP,
        NEIGHBOUR.pack(family(version), 0, 0, 0, 0) + narrow,
    )


def _address(index: int, address: Address, length: int) -> bytes:
    return (
        ADDRESS.pack(family(address.version), length, 0, _UNIVERSE, index)
        + attribute(IFA_LOCAL, address.packed)
        + attribute(IFA_ADDRESS, address.packed)
    )


def _host(address: Address, kind: int) -> bytes:
    scope = _LINK if address.version == 4 else _UNIVERSE
    length = address.max_prefixlen
    return ROUTE.pack(
        family(address.version), length, 0, 0, _MAIN, PROTOCOL, scope, kind, 0
    ) + attribute(RTA_DST, address.packed)


def _whole(subnet: Cidr) -> bytes:
    return (
        ROUTE.pack(
            family(subnet.version),
            subnet.prefixlen,
            0,
            0,
            _MAIN,
            PROTOCOL,
            _UNIVERSE,
            UNREACHABLE,
            0,
        )
        + attribute(RTA_DST, subnet.network_address.packed)
        + u32(_RTA_PRIORITY, _STATIC_METRIC)
    )
