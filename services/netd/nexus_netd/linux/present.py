"""What rtnetlink's answers say: bridges, TAPs and routes as the kernel has them now."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from nexus_netd.kernel import Bridge, Counters, Overlap, Tap
from nexus_netd.linux import routing, rtnl
from nexus_netd.linux.netlink import HEADER, Shapes, attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from nexus_netd.model import Address, Cidr

_LINK_BODY = HEADER + rtnl.LINK.size
_NEIGHBOUR_BODY = HEADER + rtnl.NEIGHBOUR.size
_ROUTE_BODY = HEADER + routing.ROUTE.size
_ADDRESS_BODY = HEADER + routing.ADDRESS.size
_HOP = struct.Struct("=HBBi")
_ACCEPT_RA = 3  # linux/ipv6.h DEVCONF_ACCEPT_RA
_ROUTER_ADVERTISEMENT = 9  # RTPROT_RA
_DEFAULT = 1  # VPNs write their default route as 0.0.0.0/1 and 128.0.0.0/1
_LINK_LOCAL = IPv6Network("fe80::/10")
_STATS = struct.Struct("=BBHII")
_STATS_64 = 1  # IFLA_STATS_LINK_64, and its bit in the mask
_COUNTS = struct.Struct("=8Q")
_STATS_BODY = HEADER + _STATS.size


_TAPS = Shapes(
    _LINK_BODY,
    (
        rtnl.IFLA_IFNAME,
        rtnl.IFLA_MTU,
        rtnl.IFLA_MASTER,
        rtnl.IFLA_IFALIAS,
        rtnl.IFLA_LINKINFO,
    ),
)
_TUN_OWNER = 1  # linux/if_link.h IFLA_TUN_OWNER
_OWNERS = Shapes(0, (_TUN_OWNER,))
_PORTS = Shapes(0, (rtnl.BRPORT_ISOLATED, rtnl.BRPORT_LOCKED))


class Link:
    """A link as a message tells it; with `tap` only as far as a TAP is asked for."""

    def __init__(self, message: bytes, *, tap: bool = False) -> None:
        self.index: int
        _, _, self.index, self._flags, _ = rtnl.LINK.unpack_from(message, HEADER)
        self._attributes = _TAPS.find(message) if tap else attributes(message, _LINK_BODY)
        self._info = attributes(self._attributes.get(rtnl.IFLA_LINKINFO, b""))

    @property
    def name(self) -> str:
        """Its name."""
        return _text(self._attributes[rtnl.IFLA_IFNAME])

    @property
    def kind(self) -> str:
        """Its kind, "bridge" or "tun"; empty for a physical one."""
        return _text(self._info.get(rtnl.INFO_KIND, b""))

    @property
    def mac(self) -> str:
        """Its MAC, "02:fc:ac:10:00:01"."""
        return self._attributes.get(rtnl.IFLA_ADDRESS, b"").hex(":")

    @property
    def master(self) -> int:
        """The index of the bridge that it is on, or 0."""
        return _number(self._attributes.get(rtnl.IFLA_MASTER, b""))

    def marked(self, mark: str) -> str | None:
        """Return what follows `mark` in its ifalias."""
        alias = _text(self._attributes.get(rtnl.IFLA_IFALIAS, b""))
        return alias.removeprefix(mark) if alias.startswith(mark) else None

    def bridge(self, addresses: Iterable[bytes], *, at_once: bool) -> Bridge:
        """Return it as the bridge that it may be.

        `addresses` are messages about addresses of all links; `at_once`: it answers without delay.
        """
        found, whole = set(), True
        for message in addresses:
            address, length, index = _address(message)
            if index == self.index and address not in _LINK_LOCAL:
                found.add(address)
                whole = whole and length == address.max_prefixlen
        return Bridge(
            self.name,
            self.marked(rtnl.NETWORK_MARK),
            self.mac,
            _number(self._attributes[rtnl.IFLA_MTU]),
            frozenset(found),
            self.kind,
            up=self._up,
            answers=whole and at_once and self._answers(),
        )

    def tap(self, bridge: str | None, macs: Collection[bytes], routed: Collection[Address]) -> Tap:
        """Return it as a TAP, with the name of its bridge, its MACs there, and its addresses."""
        owner = _OWNERS.find(self._info.get(rtnl.INFO_DATA, b"")).get(_TUN_OWNER)
        port = _PORTS.find(self._info.get(rtnl.INFO_SLAVE_DATA, b"")) if bridge else {}
        return Tap(
            self.name,
            self.marked(rtnl.VM_MARK),
            _number(owner) if owner else None,
            bridge,
            _number(self._attributes[rtnl.IFLA_MTU]),
            next(iter(macs)).hex(":") if len(macs) == 1 else None,
            frozenset(routed),
            up=self._up,
            isolated=port.get(rtnl.BRPORT_ISOLATED) == b"\1",
            locked=port.get(rtnl.BRPORT_LOCKED) == b"\1",
        )

    @property
    def accepts_ra(self) -> bool:
        """Whether it takes router advertisements only as long as IPv6 is not forwarded."""
        conf = self._settings(socket.AF_INET6, rtnl.INET6_CONF)
        return _number(conf[4 * _ACCEPT_RA :]) == 1

    @property
    def _up(self) -> bool:
        return bool(self._flags & rtnl.IFF_UP)

    def _answers(self) -> bool:
        own = attributes(self._info.get(rtnl.INFO_DATA, b""))
        if any(own.get(number, value) != value for number, value in rtnl.BRIDGE.items()):
            return False
        conf = self._settings(socket.AF_INET, rtnl.INET_CONF)
        return all(
            _number(conf[4 * (number - 1) :]) == value for number, value in rtnl.ANSWERS.items()
        )

    def _settings(self, family: int, kind: int) -> bytes:
        families = attributes(self._attributes.get(rtnl.IFLA_AF_SPEC, b""))
        return attributes(families.get(family, b"")).get(kind, b"")


def prefix_lengths(messages: Iterable[bytes], index: int) -> Iterator[tuple[Address, int]]:
    """Return the addresses of one link, but for link-local ones, with their prefix lengths."""
    for message in messages:
        address, length, link = _address(message)
        if link == index and address not in _LINK_LOCAL:
            yield address, length


def macs(messages: Iterable[bytes]) -> dict[int, set[bytes]]:
    """Return the fixed entries of bridges' tables, by the index of the port."""
    found: dict[int, set[bytes]] = {}
    for message in messages:
        if message[HEADER + 8] & rtnl.NUD_NOARP:
            index = rtnl.NEIGHBOUR.unpack_from(message, HEADER)[1]
            mac = attributes(message, _NEIGHBOUR_BODY).get(rtnl.NDA_LLADDR, b"")
            found.setdefault(index, set()).add(mac)  # a second time for a VLAN, maybe
    return found


def fixed(messages: Iterable[bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """Return the fixed neighbour entries: link's index, MAC, and the address's bytes."""
    for message in messages:
        _, index, state, _, _ = rtnl.NEIGHBOUR.unpack_from(message, HEADER)
        if state & rtnl.NUD_PERMANENT:
            found = attributes(message, _NEIGHBOUR_BODY)
            if rtnl.NDA_DST in found and rtnl.NDA_LLADDR in found:
                yield index, found[rtnl.NDA_LLADDR], found[rtnl.NDA_DST]


def routed(messages: Iterable[bytes]) -> set[tuple[int, bytes]]:
    """Return what our routes to single addresses lead to: link's index and the address's bytes."""
    found = set()
    for message in messages:
        if message[HEADER + 5] != routing.PROTOCOL or message[HEADER + 7] != routing.UNICAST:
            continue
        parts = attributes(message, _ROUTE_BODY)
        destination = parts.get(routing.RTA_DST, b"")
        if message[HEADER + 1] == 8 * len(destination):
            found.add((_number(parts.get(routing.RTA_OIF, b"")), destination))
    return found


def subnets(messages: Iterable[bytes]) -> Iterator[Cidr]:
    """Return the subnets that our routes make unreachable."""
    for message in messages:
        if message[HEADER + 5] == routing.PROTOCOL and message[HEADER + 7] == routing.UNREACHABLE:
            yield destination(message)


def overlaps(
    messages: Iterable[bytes],
    wanted: Collection[Cidr],
    bridges: Collection[int],
    name: Callable[[int], str],
) -> Iterator[Overlap]:
    """Return the routes of others into subnets. Addresses are routes too, in the local table."""
    for message in messages:
        if message[HEADER + 1] <= _DEFAULT or message[HEADER + 5] == routing.PROTOCOL:
            continue
        parts = attributes(message, _ROUTE_BODY)
        network = _network(message, parts)
        links = _links(parts)
        if links and links.issubset(bridges):
            continue
        for subnet in wanted:
            if subnet.version == network.version and network.overlaps(subnet):
                yield Overlap(network, ", ".join(sorted(map(name, links))) or "no link", subnet)


def by_advertisement(messages: Iterable[bytes]) -> set[int]:
    """Return the links that default routes from router advertisements lead over."""
    links: set[int] = set()
    for message in messages:
        if message[HEADER + 1] == 0 and message[HEADER + 5] == _ROUTER_ADVERTISEMENT:
            links |= _links(attributes(message, _ROUTE_BODY))
    return links


def is_local(messages: Iterable[bytes]) -> bool:
    """Whether the route that was found leads to the host itself."""
    return any(message[HEADER + 7] == routing.LOCAL for message in messages)


def counters(message: bytes) -> tuple[int, Counters]:
    """Read one answer with counters: the link's index, and what went through it."""
    index = _STATS.unpack_from(message, HEADER)[3]
    counts = attributes(message, _STATS_BODY)[_STATS_64]
    # What the host receives from a TAP is what the guest sent.
    received, sent, received_bytes, sent_bytes, _, _, dropped, lost = _COUNTS.unpack_from(counts)
    return index, Counters(received_bytes, received, sent_bytes, sent, dropped + lost)


def counters_asked(index: int = 0) -> bytes:
    """Return the body of a request for the counters of a link, or of all (RTM_GETSTATS)."""
    return _STATS.pack(0, 0, 0, index, _STATS_64)


def taps(
    links: Iterable[Link],
    bridges: Mapping[int, str],
    entries: Mapping[int, Collection[bytes]],
    neighbours: Iterable[tuple[int, bytes, bytes]],
    routes: Collection[tuple[int, bytes]],
) -> list[Tap]:
    """Return TAPs, each with its entries in its bridge's table and the addresses routed to it."""
    addresses: dict[tuple[int, bytes], list[Address]] = {}
    for index, mac, address in neighbours:
        if (index, address) in routes:
            addresses.setdefault((index, mac), []).append(as_address(address))
    found = []
    for link in links:
        own = entries.get(link.index, ())
        at = [address for mac in own for address in addresses.get((link.master, mac), ())]
        found.append(link.tap(bridges.get(link.master), own, at))
    return found


def destination(message: bytes) -> Cidr:
    """Return where a route leads."""
    return _network(message, attributes(message, _ROUTE_BODY))


def as_address(packed: bytes) -> Address:
    """Return an address from its 4 or 16 bytes."""
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _address(message: bytes) -> tuple[Address, int, int]:
    """Read a message about an address: it, its prefix length, and the link's index."""
    _, length, _, _, index = routing.ADDRESS.unpack_from(message, HEADER)
    parts = attributes(message, _ADDRESS_BODY)
    # IPv6 has no IFA_LOCAL but on point-to-point links.
    packed = parts.get(routing.IFA_LOCAL) or parts[routing.IFA_ADDRESS]
    return as_address(packed), length, index


def _network(message: bytes, parts: Mapping[int, bytes]) -> Cidr:
    length = message[HEADER + 1]
    if message[HEADER] == socket.AF_INET:
        return IPv4Network((parts.get(routing.RTA_DST, bytes(4)), length))
    return IPv6Network((parts.get(routing.RTA_DST, bytes(16)), length))


def _links(parts: Mapping[int, bytes]) -> set[int]:
    if routing.RTA_OIF in parts:
        return {_number(parts[routing.RTA_OIF])}
    hops, offset, links = parts.get(routing.RTA_MULTIPATH, b""), 0, set()
    while offset + _HOP.size <= len(hops):
        length, _, _, index = _HOP.unpack_from(hops, offset)
        links.add(index)
        offset += max((length + 3) & ~3, _HOP.size)
    return links


def _number(data: bytes) -> int:
    return int.from_bytes(data[:4], "little") if len(data) >= 4 else 0


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
