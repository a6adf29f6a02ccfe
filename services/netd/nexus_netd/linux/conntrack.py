"""Tracked connections over ctnetlink: who has which, how many, and to forget some. Blocking calls.

Each look has a socket of its own, which is closed when enough has been seen.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
from typing import TYPE_CHECKING

from nexus_netd.kernel import MOST_FLOWS, Flow
from nexus_netd.linux.netlink import (
    ACK,
    DUMP,
    HEADER,
    NETFILTER,
    Netlink,
    Request,
    attribute,
    attributes,
    nest,
    u32,
)
from nexus_netd.linux.present import as_address

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from nexus_netd.model import Address

# linux/netfilter/nfnetlink_conntrack.h
_CONNTRACK = 1 << 8
_GET, _DELETE, _GET_STATS = 1, 2, 5
_ORIGINAL, _REPLY, _STATE, _ID, _ZONE, _FILTER = 1, 2, 4, 12, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCE = {4: 1, 6: 3}
_DESTINATION = {4: 2, 6: 4}
_NUMBER, _DESTINATION_PORT = 1, 3
_ENTRIES = 1  # CTA_STATS_GLOBAL_ENTRIES
_FILTER_ORIGINAL, _FILTER_REPLY, _BY_SOURCE = 1, 2, 1
_OF_TCP, _TCP_STATE = 1, 1
_CLOSED = (b"\7", b"\10")  # TIME_WAIT and CLOSE (nf_conntrack_tcp.h), as nf_conncount has it

_BODY = HEADER + 4
_TUPLE = 96
"""Bytes within which the first attribute ends, the tuple as it was asked."""
_FEW = 4
"""Addresses up to which the kernel looks for each; for more, it lists all."""
_AS_LONG_AS_A_WALK = 2_000
"""Connections that are listed in the time that a walk over the table takes."""
_BATCH = 1_024


def flows(addresses: Collection[Address]) -> list[Flow]:
    """Return the connections that these addresses opened, or answer; at most 65,536."""
    if not addresses:
        return []
    wanted = frozenset(address.packed for address in addresses)
    found: dict[bytes, Flow] = {}
    for request in _requests(addresses):
        listed = _dump(request)
        if len(wanted) <= _FEW:  # a look for the bytes first, which is quick
            listed = (message for message in listed if any(one in message for one in wanted))
        for message in listed:
            parts = attributes(message, _BODY)
            flow = _flow(parts, message[HEADER])
            if flow is not None and (
                flow.source.packed in wanted or _source(parts.get(_REPLY, b"")) in wanted
            ):
                found[flow.key] = flow
                if len(found) == MOST_FLOWS:
                    return list(found.values())
    return list(found.values())


def count() -> dict[Address, int]:
    """Return how many connections each source has, of the first 65,536 that the kernel lists."""
    counts: dict[bytes, int] = {}
    for message in itertools.islice(_dump(_list()), MOST_FLOWS):
        source = _source(attributes(message, _BODY, _BODY + _TUPLE).get(_ORIGINAL, b""))
        if source:
            counts[source] = counts.get(source, 0) + 1
    return {as_address(source): number for source, number in counts.items()}


def cut(flows: Collection[Flow]) -> int:
    """Forget connections; returns how many there still were. Raises KernelError."""
    if not flows:
        return 0
    requests = [
        Request(
            f"cut the connection of {flow.source} to {flow.destination}",
            _CONNTRACK | _DELETE,
            ACK,
            _header(flow.source.version) + flow.key,
            frozenset({errno.ENOENT}),
        )
        for flow in flows
    ]
    with contextlib.closing(Netlink(NETFILTER)) as netlink:
        return sum(
            netlink.count(*requests[first : first + _BATCH])
            for first in range(0, len(requests), _BATCH)
        )


def _requests(addresses: Collection[Address]) -> Iterator[Request]:
    """Return what lists the connections of some addresses, and maybe others'.

    Each request makes the kernel walk over its whole table, some 10 ms for 262,144 buckets.
    """
    walks = 2 * len(addresses)
    if len(addresses) > _FEW or _number() <= (walks - 1) * _AS_LONG_AS_A_WALK:
        yield _list()
        return
    for address in addresses:
        source = attribute(_SOURCE[address.version], address.packed)
        for part, flags in ((_ORIGINAL, _FILTER_ORIGINAL), (_REPLY, _FILTER_REPLY)):
            yield Request(
                f"list the connections of {address}",
                _CONNTRACK | _GET,
                DUMP,
                _header(address.version)
                + nest(part, nest(_TUPLE_IP, source))
                + nest(_FILTER, u32(flags, _BY_SOURCE)),
            )


def _number() -> int:
    """Return how many connections are tracked."""
    request = Request("count connections", _CONNTRACK | _GET_STATS, ACK, bytes(4))
    with contextlib.closing(Netlink(NETFILTER)) as netlink:
        (answer,) = netlink.run(request)[0]
    return int.from_bytes(attributes(answer, _BODY).get(_ENTRIES, b""), "big")


def _list() -> Request:
    return Request("list connections", _CONNTRACK | _GET, DUMP, bytes(4))


def _dump(request: Request) -> Iterator[bytes]:
    with contextlib.closing(Netlink(NETFILTER)) as netlink:
        for piece in netlink.passes(request):
            yield from piece


def _flow(parts: dict[int, bytes], family: int) -> Flow | None:
    original = attributes(parts.get(_ORIGINAL, b""))
    ip, protocol = attributes(original.get(_TUPLE_IP, b"")), original.get(_TUPLE_PROTOCOL, b"")
    version = 4 if family == socket.AF_INET else 6
    if _SOURCE[version] not in ip or _DESTINATION[version] not in ip:
        return None
    what = attributes(protocol)
    # What the kernel finds it by, and its id, so that a later one of the same kind is left alone.
    key = nest(_ORIGINAL, parts[_ORIGINAL]) + b"".join(
        attribute(kind, parts[kind]) for kind in (_ZONE, _ID) if kind in parts
    )
    return Flow(
        as_address(ip[_SOURCE[version]]),
        as_address(ip[_DESTINATION[version]]),
        what.get(_NUMBER, b"\0")[0],
        int.from_bytes(what.get(_DESTINATION_PORT, b""), "big"),
        key,
        attributes(attributes(parts.get(_STATE, b"")).get(_OF_TCP, b"")).get(_TCP_STATE) in _CLOSED,
        _destination(parts.get(_REPLY, b"")) != ip[_SOURCE[version]],
    )


def _source(tuple_: bytes) -> bytes:
    """Return the source's address of a tuple."""
    ip = attributes(attributes(tuple_).get(_TUPLE_IP, b""))
    return ip.get(_SOURCE[4]) or ip.get(_SOURCE[6]) or b""


def _destination(tuple_: bytes) -> bytes:
    """Return the destination's address of a tuple."""
    ip = attributes(attributes(tuple_).get(_TUPLE_IP, b""))
    return ip.get(_DESTINATION[4]) or ip.get(_DESTINATION[6]) or b""


def _header(version: int) -> bytes:
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    return struct.pack("!BBH", family, 0, 0)
