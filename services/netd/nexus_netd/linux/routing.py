"""rtnetlink's messages about addresses, routes and neighbours.

Each guest has a route of its own to its bridge, and a fixed neighbour entry; the subnet as a whole
is unreachable, so that a bridge holds no more than its guests, and what nobody has goes nowhere.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nexus_netd.linux.netlink import ACK, CREATE, DUMP, REPLACE, Request, encoded
from nexus_netd.linux.rtnl import (
    DELNEIGH,
    GETNEIGH,
    NEWNEIGH,
    NUD_PERMANENT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_netd.model import Address, Cidr

NEWADDR, DELADDR, _GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, _GETROUTE = 24, 25, 26

ADDRESS = struct.Struct("=BBBBi")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, two prefix lengths, TOS, table, protocol, scope, type, flags."""

PROTOCOL = 110
"""Who made our routes; free in iproute2's rt_protos."""

RTA_DST, RTA_OIF, RTA_MULTIPATH = 1, 4, 9
IFA_ADDRESS, IFA_LOCAL = 1, 2
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
        encoded(ifaddrmsg(), family=family(version), index=index),
        frozenset({errno.ENODEV}),
    )


def new_address(index: int, bridge: str, address: Address) -> Request:
    """Give a bridge an address, to be used at once."""
    flags = 0 if address.version == 4 else _NODAD | _NOPREFIXROUTE
    return Request(
        f"give {bridge} the address {address}",
        NEWADDR,
        ACK | CREATE | REPLACE,
        _address(index, address, address.max_prefixlen, [("IFA_FLAGS", flags)]),
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
        encoded(rtmsg(), family=family(version), table=table, proto=protocol, type=kind),
        # A family that the kernel does not have, or a table that has never been used.
        frozenset({errno.EOPNOTSUPP, errno.ENOENT}),
    )


def find_route(address: Address) -> Request:
    """Ask by which route packets go to an address; none is no failure."""
    return Request(
        f"find the route to {address}",
        _GETROUTE,
        ACK,
        encoded(
            rtmsg(),
            [("RTA_DST", str(address))],
            family=family(address.version),
            dst_len=address.max_prefixlen,
            flags_=_FIB_MATCH,
        ),
        frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}),
    )


def route(bridge: int, address: Address, gateway: Address, mac: str) -> list[Request]:
    """Route an address to its bridge, and fix its MAC: no guest answers for another."""
    return [
        Request(
            f"fix {address} to {mac}",
            NEWNEIGH,
            ACK | CREATE | REPLACE,
            encoded(
                ndmsg(),
                [("NDA_DST", str(address)), ("NDA_LLADDR", mac)],
                family=family(address.version),
                ifindex=bridge,
                state=NUD_PERMANENT,
            ),
        ),
        Request(
            f"route {address}",
            NEWROUTE,
            ACK | CREATE | REPLACE,
            _host(address, [("RTA_OIF", bridge), ("RTA_PREFSRC", str(gateway))]),
        ),
    ]


def unroute(bridge: int, address: Address) -> list[Request]:
    """Undo `route`; nothing to undo is no failure."""
    return [
        Request(
            f"unroute {address}",
            DELROUTE,
            ACK,
            _host(address, [("RTA_OIF", bridge)]),
            _GONE,
        ),
        Request(
            f"forget the MAC of {address}",
            DELNEIGH,
            ACK,
            encoded(
                ndmsg(),
                [("NDA_DST", str(address))],
                family=family(address.version),
                ifindex=bridge,
            ),
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
    narrow = [("NDA_IFINDEX", bridge)] if bridge else []
    return Request(
        f"list IPv{version} neighbours",
        GETNEIGH,
        DUMP,
        encoded(ndmsg(), narrow, family=family(version)),
    )


def _address(
    index: int, address: Address, length: int, more: Sequence[tuple[str, int]] = ()
) -> bytes:
    return encoded(
        ifaddrmsg(),
        [("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address)), *more],
        family=family(address.version),
        prefixlen=length,
        scope=_UNIVERSE,
        index=index,
    )


def _host(address: Address, more: Sequence[tuple[str, Any]]) -> bytes:
    return encoded(
        rtmsg(),
        [("RTA_DST", str(address)), *more],
        family=family(address.version),
        dst_len=address.max_prefixlen,
        table=_MAIN,
        proto=PROTOCOL,
        scope=_LINK if address.version == 4 else _UNIVERSE,
        type=UNICAST,
    )


def _whole(subnet: Cidr) -> bytes:
    return encoded(
        rtmsg(),
        [("RTA_DST", str(subnet.network_address)), ("RTA_PRIORITY", _STATIC_METRIC)],
        family=family(subnet.version),
        dst_len=subnet.prefixlen,
        table=_MAIN,
        proto=PROTOCOL,
        scope=_UNIVERSE,
        type=UNREACHABLE,
    )
