"""Who listens on the host, by sock_diag(7). Blocking calls."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from nexus_netd.kernel import Listener
from nexus_netd.linux.netlink import DUMP, HEADER, SOCK_DIAG, Netlink, Request, attributes
from nexus_netd.model import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
# struct inet_diag_req_v2: family, protocol, extensions, states, and which socket
_REQUEST = struct.Struct("=BBBxI48x")
# struct inet_diag_msg: family, ..., source's and destination's port, source's address, ...
_MESSAGE = struct.Struct("!B3xHH16s48x")
_ONLY_IPV6 = 11  # INET_DIAG_SKV6ONLY

_STATES = {
    Protocol.TCP: 1 << 10,  # TCP_LISTEN
    Protocol.UDP: 1 << 7,  # TCP_CLOSE: connected to nobody in particular
}


def listeners() -> frozenset[Listener]:
    """Return the sockets that take TCP connections or UDP datagrams.

    One on "::" that takes IPv4, too, is there twice. Raises KernelError.
    """
    with contextlib.closing(Netlink(SOCK_DIAG)) as netlink:
        return frozenset(
            listener
            for protocol in _STATES
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in netlink.dump(_list(protocol, family))
            for listener in _listeners(protocol, message)
        )


def _list(protocol: Protocol, family: socket.AddressFamily) -> Request:
    # Without IPv6 in the kernel there is nobody to ask.
    missing = frozenset({errno.ENOENT}) if family == socket.AF_INET6 else frozenset()
    return Request(
        f"list {protocol.name} sockets",
        _BY_FAMILY,
        DUMP,
        _REQUEST.pack(family, protocol, 0, _STATES[protocol]),
        missing,
    )


def _listeners(protocol: Protocol, message: bytes) -> Iterator[Listener]:
    family, port, _, packed = _MESSAGE.unpack_from(message, HEADER)
    if family == socket.AF_INET:
        yield Listener(protocol, IPv4Address(packed[:4]), port)
        return
    address = IPv6Address(packed)
    if address.ipv4_mapped is not None:
        yield Listener(protocol, address.ipv4_mapped, port)
        return
    yield Listener(protocol, address, port)
    only = attributes(message, HEADER + _MESSAGE.size).get(_ONLY_IPV6) == b"\1"
    if not int(address) and not only:
        yield Listener(protocol, IPv4Address(0), port)
