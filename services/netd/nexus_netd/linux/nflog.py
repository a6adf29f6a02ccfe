"""Refused packets, as rules of ours hand them to NFLOG group 110.

Guests write these packets: whatever the bytes are, they are read or left out, and never raise.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from nexus_netd.kernel import Refusal
from nexus_netd.linux.names import name_of
from nexus_netd.linux.netlink import (
    ACK,
    HEADER,
    NETFILTER,
    Netlink,
    Request,
    attribute,
    attributes,
    messages,
)
from nexus_netd.linux.present import as_address
from nexus_netd.linux.stream import Stream
from nexus_netd.rules import firewall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexus_netd.model import Address

# linux/netfilter/nfnetlink_log.h
_ULOG = 4
_PACKET, _CONFIG = 0, 1
_COMMAND, _MODE, _SIZE, _TIMEOUT, _THRESHOLD = 1, 2, 3, 4, 5
_BIND, _COPY_PACKET = 1, 2
_HEADER, _IN, _PHYSICAL_IN, _PAYLOAD, _PREFIX = 1, 4, 6, 9, 10

_BRIDGE = 7  # NFPROTO_BRIDGE
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_WITH_PORTS = frozenset({socket.IPPROTO_TCP, socket.IPPROTO_UDP})
_FRAGMENT = 44
_FRAGMENT_OFFSET = 0x1FFF
_NOTHING: tuple[None, None, int, int] = (None, None, 0, 0)

_COPIED = 128
"""Bytes of each packet: enough for its addresses and ports."""
_AT_A_TIME = 32
_WAIT = 10
"""Hundredths of a second for which the kernel gathers packets, unless there are 32."""
_BUFFER = 1 << 14
_MOST = 4_096
_REST = 0.02

_MARK = "nexus "

Packet = tuple["Address | None", "Address | None", int, int]
"""Source, destination, protocol, destination port."""


def bind(group: int = firewall.NFLOG_GROUP) -> socket.socket:
    """Return a socket that hears of the packets of a group, until it is closed.

    Raises KernelError; EPERM when another process of this network namespace has the group.
    """
    netlink = Netlink(NETFILTER)
    try:
        netlink.run(
            _config(
                group,
                f"hear of refused packets (NFLOG group {group}, of one process at a time)",
                attribute(_COMMAND, bytes([_BIND])),
            ),
            _config(
                group,
                "set how refused packets are told",
                attribute(_MODE, struct.pack("!IBx", _COPIED, _COPY_PACKET)),
                attribute(_SIZE, struct.pack("!I", _BUFFER)),
                attribute(_TIMEOUT, struct.pack("!I", _WAIT)),
                attribute(_THRESHOLD, struct.pack("!I", _AT_A_TIME)),
            ),
        )
    except BaseException:
        netlink.close()
        raise
    return netlink.detach()


def listen(bound: socket.socket) -> Stream[Refusal]:
    """Tell of what a bound socket hears; at most some 10,000 packets a second are looked at."""
    stream = Stream[Refusal](_MOST, rest=_REST)
    stream.listen(bound, refusals)
    return stream


def refusals(data: bytes) -> Iterator[Refusal]:
    """Read a datagram of nfnetlink_log."""
    for kind, _, _, _, message in messages(data):
        if kind == _ULOG << 8 | _PACKET:
            refusal = _refusal(message)
            if refusal is not None:
                yield refusal


def _refusal(message: bytes) -> Refusal | None:
    parts = attributes(message, HEADER + 4)
    prefix = parts.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
    if not prefix.startswith(_MARK):
        return None
    tap = None
    if message[HEADER] == _BRIDGE:
        index = parts.get(_PHYSICAL_IN) or parts.get(_IN) or bytes(4)
        tap = name_of(int.from_bytes(index, "big")) or ""
    ether = int.from_bytes(parts.get(_HEADER, b"")[:2], "big")
    read = _READERS.get(ether)
    try:
        packet = read(parts.get(_PAYLOAD, b"")) if read else _NOTHING
    except (struct.error, ValueError, IndexError):
        packet = _NOTHING
    return Refusal(prefix.removeprefix(_MARK).rstrip(), tap, *packet)


def _ipv4(data: bytes) -> Packet:
    """RFC 791, 3.1."""
    first, fragment, protocol = struct.unpack_from("!B5xHxB", data)
    source, destination = as_address(data[12:16]), as_address(data[16:20])
    if protocol not in _WITH_PORTS or fragment & _FRAGMENT_OFFSET:
        return source, destination, protocol, 0
    return source, destination, protocol, _port(data, 4 * (first & 0xF))


def _ipv6(data: bytes) -> Packet:
    """RFC 8200, 3 and 4.5."""
    protocol, offset = data[6], 40
    source, destination = as_address(data[8:24]), as_address(data[24:40])
    if protocol == _FRAGMENT and len(data) >= offset + 8:
        protocol = data[offset]
        if struct.unpack_from("!H", data, offset + 2)[0] >> 3:
            return source, destination, protocol, 0
        offset += 8
    return source, destination, protocol, _port(data, offset) if protocol in _WITH_PORTS else 0


def _arp(data: bytes) -> Packet:
    """RFC 826, with Ethernet and IPv4: who says to be where, and whom it asks for."""
    if len(data) < 28:
        return _NOTHING
    return as_address(data[14:18]), as_address(data[24:28]), 0, 0


def _port(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("!H", data, offset + 2)[0]) if len(data) >= offset + 4 else 0


_READERS = {_IPV4: _ipv4, _IPV6: _ipv6, _ARP: _arp}


def _config(group: int, what: str, *parts: bytes) -> Request:
    # struct nfgenmsg: the group is where others have a resource's id.
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, group) + b"".join(parts)
    return Request(what, _ULOG << 8 | _CONFIG, ACK, body)
