"""Bridges, their addresses, the subnets behind them, and what the host forwards. Blocking calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError
from nexus_netd.linux import present, routing, rtnl
from nexus_netd.linux.names import index_of, shown

if TYPE_CHECKING:
    from collections.abc import Collection

    from nexus_netd.kernel import Bridge, Overlap
    from nexus_netd.linux.netlink import Netlink
    from nexus_netd.model import Address, Cidr

_FORWARDING = {
    4: (Path("/proc/sys/net/ipv4/ip_forward"), "net.ipv4.ip_forward"),
    6: (Path("/proc/sys/net/ipv6/conf/all/forwarding"), "net.ipv6.conf.all.forwarding"),
}
_DELAY = "/proc/sys/net/ipv4/neigh/{}/proxy_delay"


def read(netlink: Netlink, name: str) -> Bridge | None:
    """Return the link of that name as a bridge, whatever its kind."""
    found = netlink.run(rtnl.get_link(name))[0]
    return _bridges(netlink, [present.Link(found[0])])[0] if found else None


def marked(netlink: Netlink) -> list[Bridge]:
    """Return the bridges with our mark."""
    links = map(present.Link, netlink.dump(rtnl.list_links("bridge")))
    return _bridges(netlink, [link for link in links if link.marked(rtnl.NETWORK_MARK)])


def put(netlink: Netlink, want: Bridge) -> None:
    """Make the bridge, or bring it to what it should be, with exactly its addresses."""
    found = netlink.run(rtnl.make_bridge(want), rtnl.get_link(want.name))[1]
    link = present.Link(found[0])
    netlink.run(rtnl.set_bridge(want, link.mac))
    index = link.index
    has = set(present.prefix_lengths(_addresses(netlink), index))
    wanted = {(address, address.max_prefixlen) for address in want.addresses}
    netlink.run(
        rtnl.answer_at_once(index, want.name),
        *(routing.delete_address(index, want.name, *address) for address in has - wanted),
        *(routing.new_address(index, want.name, address) for address, _ in wanted - has),
    )


def subnets(netlink: Netlink) -> frozenset[Cidr]:
    """Return the subnets that we made unreachable as a whole."""
    kind = routing.UNREACHABLE
    return frozenset(
        subnet
        for version in (4, 6)
        for subnet in present.subnets(
            netlink.dump(routing.list_routes(version, ours=True, kind=kind))
        )
    )


def put_subnets(netlink: Netlink, want: Collection[Cidr]) -> None:
    """Make exactly these subnets unreachable but for the addresses of ports."""
    has = subnets(netlink)
    netlink.run(
        *(routing.delete_subnet(subnet) for subnet in has.difference(want)),
        *(routing.new_subnet(subnet) for subnet in set(want) - has),
    )


def overlaps(netlink: Netlink, wanted: Collection[Cidr], ours: Collection[str]) -> list[Overlap]:
    """Return others' routes and addresses in subnets."""
    indexes = {index for name in ours if (index := index_of(name)) is not None}
    return [
        overlap
        for version in sorted({subnet.version for subnet in wanted})
        for overlap in present.overlaps(
            netlink.dump(routing.list_routes(version)), wanted, indexes, shown
        )
    ]


def by_advertisement(netlink: Netlink) -> list[str]:
    """Return the links whose default IPv6 route would be lost by forwarding."""
    links = sorted(present.by_advertisement(netlink.dump(routing.list_routes(6))))
    found = [answer for answers in netlink.run(*map(rtnl.get_link, links)) for answer in answers]
    return [link.name for link in map(present.Link, found) if link.accepts_ra]


def is_local(netlink: Netlink, address: Address) -> bool:
    """Whether the address is one of the host's own."""
    return present.is_local(netlink.run(routing.find_route(address))[0])


def forwarding() -> frozenset[int]:
    """Return the IP versions that the host forwards."""
    return frozenset(version for version in _FORWARDING if _forwards(version))


def put_forwarding(version: int) -> None:
    """Let the host forward that IP version; written only where it is off."""
    path, name = _FORWARDING[version]
    if _forwards(version):
        return
    try:
        path.write_text("1")
    except OSError as error:
        raise KernelError(
            error.errno,
            f"{path} cannot be written ({error.strerror}): set {name}=1 by sysctl.d",
        ) from error


def _bridges(netlink: Netlink, links: list[present.Link]) -> list[Bridge]:
    addresses = _addresses(netlink) if links else []
    return [link.bridge(addresses, at_once=_at_once(link.name)) for link in links]


def _addresses(netlink: Netlink) -> list[bytes]:
    return [
        message for version in (4, 6) for message in netlink.dump(routing.list_addresses(version))
    ]


def _at_once(name: str) -> bool:
    """Whether the link answers ARP for others at once."""
    try:
        return Path(_DELAY.format(name)).read_text().strip() == "0"
    except OSError:
        return False


def _forwards(version: int) -> bool:
    try:
        return _FORWARDING[version][0].read_text().strip() != "0"
    except OSError:
        return False
