"""What the kernel tells of changes in links, addresses, routes, neighbours, forwarding and rules.

Only what may concern us is told on, and nothing that our own sockets have done, where the kernel
says who did it (the port of the socket in the message's header).
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from nexus_netd.kernel import Changed, Matter
from nexus_netd.linux import bpf, present, routing, rtnl
from nexus_netd.linux.names import name_of
from nexus_netd.linux.netlink import HEADER, NETFILTER, ROUTE, attributes, messages
from nexus_netd.linux.stream import Stream, enlarge
from nexus_netd.linux.tuntap import PREFIX
from nexus_netd.rules import ruleset

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# linux/rtnetlink.h RTNLGRP_*: link, neighbour, IPv4 and IPv6 address, route and netconf
_ROUTE_GROUPS = (1, 3, 5, 9, 7, 11, 24, 25)
_RULE_GROUPS = (7,)  # NFNLGRP_NFTABLES
_NEWNETCONF = 80
_NETCONF = struct.Struct("=B3x")
_NETCONF_IFINDEX = 1
_ALL = struct.pack("=i", -1)
_NFTABLES = 10
_NEW_GENERATION = 15
_TABLE = 1  # NFTA_TABLE_NAME, and the table's name in everything that is in a table
_OUR_TABLE = ruleset.NAME.encode() + b"\0"
_MOST = 4_096
_BUFFER = 4 << 20

_LINK_KINDS = (rtnl.NEWLINK, rtnl.DELLINK)
_ADDRESS_KINDS = (routing.NEWADDR, routing.DELADDR)
_ROUTE_KINDS = (routing.NEWROUTE, routing.DELROUTE)
_NEIGHBOUR_KINDS = (rtnl.NEWNEIGH, rtnl.DELNEIGH)


class Events:
    """Reads messages as changes. `bridges` are the names of ours, as far as they are known."""

    def __init__(self, bridges: Collection[str]) -> None:
        self._bridges = bridges
        self._readers: dict[int, Callable[[bytes], Iterator[Changed]]] = {
            **dict.fromkeys(_LINK_KINDS, self._link),
            **dict.fromkeys(_ADDRESS_KINDS, self._address),
            **dict.fromkeys(_ROUTE_KINDS, _route),
            **dict.fromkeys(_NEIGHBOUR_KINDS, self._neighbour),
            _NEWNETCONF: self._netconf,
        }

    def listen(self, own: Collection[int]) -> Stream[Changed]:
        """Begin to listen; `own` are the ports of sockets whose changes are left out."""
        stream = Stream[Changed](_MOST, lost=Changed(Matter.EVERYTHING))
        stream.listen(_joined(ROUTE, _ROUTE_GROUPS, own), self.read)
        stream.listen(_joined(NETFILTER, _RULE_GROUPS, own), rules)
        return stream

    def read(self, data: bytes) -> Iterator[Changed]:
        """Read a datagram of rtnetlink."""
        for kind, _, _, _, message in messages(data):
            reader = self._readers.get(kind)
            if reader is not None:
                yield from reader(message)

    def _link(self, message: bytes) -> Iterator[Changed]:
        link = present.Link(message)
        name = link.name
        if (
            self._ours(name)
            or link.kind == "bridge"
            or link.marked(rtnl.VM_MARK)
            or link.marked(rtnl.NETWORK_MARK)
            or (link.master and name_of(link.master) in self._bridges)
        ):
            yield Changed(Matter.LINK, name)

    def _address(self, message: bytes) -> Iterator[Changed]:
        yield from self._at(routing.ADDRESS.unpack_from(message, HEADER)[4])

    def _neighbour(self, message: bytes) -> Iterator[Changed]:
        family, index, _, _, _ = rtnl.NEIGHBOUR.unpack_from(message, HEADER)
        if family == socket.AF_BRIDGE:
            yield from self._at(index)
        elif name_of(index) in self._bridges:
            found = attributes(message, HEADER + rtnl.NEIGHBOUR.size).get(rtnl.NDA_DST, b"")
            address = present.as_address(found)
            # These come and go as guests and the bridge itself speak; they are nobody's.
            if not (address.is_link_local or address.is_multicast):
                yield Changed(Matter.NEIGHBOURS, str(address))

    def _netconf(self, message: bytes) -> Iterator[Changed]:
        index = attributes(message, HEADER + _NETCONF.size).get(_NETCONF_IFINDEX, _ALL)
        if index == _ALL:
            yield Changed(Matter.FORWARDING)
        else:
            yield from self._at(struct.unpack("=i", index)[0])

    def _at(self, index: int) -> Iterator[Changed]:
        name = name_of(index) if index > 0 else None
        if name is not None and self._ours(name):
            yield Changed(Matter.LINK, name)

    def _ours(self, name: str) -> bool:
        return name.startswith(PREFIX) or name in self._bridges


def rules(data: bytes) -> Iterator[Changed]:
    """Read a datagram of nfnetlink about nftables: whether one of our tables is in it."""
    for kind, _, _, _, message in messages(data):
        if (
            kind >> 8 == _NFTABLES
            and kind & 0xFF != _NEW_GENERATION
            and message[HEADER] in (ruleset.Family.INET, ruleset.Family.BRIDGE)
            and attributes(message, HEADER + 4).get(_TABLE) == _OUR_TABLE
        ):
            yield Changed(Matter.RULES)
            return


def _route(message: bytes) -> Iterator[Changed]:
    if message[HEADER + 5] == routing.PROTOCOL:
        yield Changed(Matter.ROUTES, str(present.destination(message)))


def _joined(protocol: int, groups: Collection[int], own: Collection[int]) -> socket.socket:
    """Return a socket that hears what the groups are told, but for what `own` have done."""
    joined = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        enlarge(joined, _BUFFER)
        bpf.attach(joined, bpf.not_from(own))
        joined.bind((0, 0))
        for group in groups:
            joined.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except BaseException:
        joined.close()
        raise
    return joined
