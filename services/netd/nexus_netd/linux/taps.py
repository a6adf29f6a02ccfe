"""TAPs on bridges: what they are, how they are plugged in, what is routed to them.

All calls block.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError
from nexus_netd.linux import present, routing, rtnl, tuntap
from nexus_netd.linux.names import index_of, name_of, names_of, need
from nexus_netd.linux.netlink import ACK, DUMP, Request
from nexus_netd.linux.tuntap import PREFIX
from nexus_rpc.ids import vm_uid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from nexus_netd.kernel import Counters, Tap
    from nexus_netd.linux.netlink import Netlink
    from nexus_netd.model import Address, Guest

_GETSTATS = 94


def marked(netlink: Netlink) -> list[Tap]:
    """Return the TAPs with our mark, and those on bridges with our mark."""
    bridges = [present.Link(message) for message in netlink.dump(rtnl.list_links("bridge"))]
    ours = {link.index for link in bridges if link.marked(rtnl.NETWORK_MARK)}
    links = [present.Link(message, tap=True) for message in netlink.dump(rtnl.list_links("tun"))]
    return present.taps(
        [link for link in links if link.master in ours or link.marked(rtnl.VM_MARK)],
        {link.index: link.name for link in bridges},
        present.macs(netlink.dump(rtnl.list_macs())),
        present.fixed(
            message
            for version in (4, 6)
            for message in netlink.dump(routing.list_neighbours(version))
        ),
        present.routed(
            message
            for version in (4, 6)
            for message in netlink.dump(
                routing.list_routes(version, ours=True, kind=routing.UNICAST)
            )
        ),
    )


def read(netlink: Netlink, name: str) -> Tap | None:
    """Return the TAP of that name."""
    link = _link(netlink, name)
    if link is None:
        return None
    if not link.master:
        return link.tap(None, (), ())
    entries = present.macs(netlink.dump(rtnl.list_macs(link.master, link.index)))
    near = [
        found for mac in entries.get(link.index, ()) for found in _fixed(netlink, link.master, mac)
    ]
    answers = netlink.run(
        *(routing.find_route(present.as_address(address)) for _, _, address in near)
    )
    routes = present.routed(answer for found in answers for answer in found)
    bridge = name_of(link.master)
    return present.taps([link], {link.master: bridge} if bridge else {}, entries, near, routes)[0]


def plug(netlink: Netlink, guest: Guest) -> None:
    """Bring a TAP that exists to what it should be; addresses that are no more are unrouted."""
    bridge, link = need(guest.bridge), _link(netlink, guest.tap)
    if link is None:
        raise KernelError(errno.ENODEV, f"there is no TAP {guest.tap}")
    netlink.run(
        rtnl.take_down(link.index, guest.tap), *rtnl.plug(link.index, guest.tap, bridge, guest)
    )
    entries = present.macs(netlink.dump(rtnl.list_macs(bridge, link.index)))
    mac = rtnl.mac_bytes(guest.mac)
    netlink.run(
        *(
            rtnl.let_no_more_in(link.index, guest.tap, other)
            for other in entries.get(link.index, ())
            if other != mac
        ),
        *(
            request
            for index in {bridge, link.master} - {0}
            for _, _, address in _fixed(netlink, index, mac)
            if index != bridge or present.as_address(address) not in guest.addresses
            for request in routing.unroute(index, present.as_address(address))
        ),
        *_routes(guest, bridge),
    )


def give(netlink: Netlink, guest: Guest) -> bool:
    """Make a TAP the uid's of its VM; False while a process has it open, or it is missing."""
    link = _link(netlink, guest.tap)
    return link is not None and tuntap.give(guest.tap, vm_uid(guest.vm_id))


def route(netlink: Netlink, guest: Guest) -> None:
    """Route a guest's addresses to its bridge, and fix their MAC."""
    netlink.run(*_routes(guest, need(guest.bridge)))


def unroute(netlink: Netlink, bridge: str, addresses: Iterable[Address]) -> None:
    """Undo `route`, if anything is left of it."""
    index = index_of(bridge)
    if index is not None:
        netlink.run(
            *(request for address in addresses for request in routing.unroute(index, address))
        )


def isolate(netlink: Netlink, tap: Tap) -> int | None:
    """Take a TAP's routes, and the frames, if it still has the mark that `tap` has.

    Returns its index; None if it is not there, or has another mark.
    """
    link = _link(netlink, tap.name)
    if link is None or link.marked(rtnl.VM_MARK) != tap.vm_id:
        return None
    if tap.bridge is not None:
        unroute(netlink, tap.bridge, tap.addresses)
    return link.index


def counters(netlink: Netlink) -> dict[str, Counters]:
    """Return what went through each link that is called as our TAPs are."""
    request = Request("read counters", _GETSTATS, DUMP, present.counters_asked())
    counted = dict(map(present.counters, netlink.dump(request)))
    return {name: counted[index] for index, name in names_of(counted) if name.startswith(PREFIX)}


def counters_of(netlink: Netlink, name: str) -> Counters | None:
    """Return what went through one link; None if it is not there."""
    index = index_of(name)
    if index is None:
        return None
    request = Request(
        f"read counters of {name}",
        _GETSTATS,
        ACK,
        present.counters_asked(index),
        frozenset({errno.ENODEV}),
    )
    return next((present.counters(answer)[1] for answer in netlink.run(request)[0]), None)


def _routes(guest: Guest, bridge: int) -> list[Request]:
    requests = routing.route(bridge, guest.ipv4, guest.gateway, guest.mac)
    if guest.ipv6 is not None and guest.ipv6_gateway is not None:
        requests += routing.route(bridge, guest.ipv6, guest.ipv6_gateway, guest.mac)
    return requests


def _link(netlink: Netlink, name: str) -> present.Link | None:
    found = [present.Link(message) for message in netlink.run(rtnl.get_link(name))[0]]
    return next((link for link in found if link.kind == "tun"), None)


def _fixed(netlink: Netlink, bridge: int, mac: bytes) -> Collection[tuple[int, bytes, bytes]]:
    """Return the fixed neighbour entries of a MAC on one bridge."""
    return [
        found
        for version in (4, 6)
        for found in present.fixed(
            # A look for the bytes first: there are as many entries as the bridge has guests.
            message
            for message in netlink.dump(routing.list_neighbours(version, bridge))
            if mac in message
        )
        if found[1] == mac
    ]
