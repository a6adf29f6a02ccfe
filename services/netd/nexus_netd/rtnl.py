"""rtnetlink: the messages about links, addresses, routes and neighbours, and what they say.

Messages are built here and sent by `nexus_netd.linux`, several at a time.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink import rtnl
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import NTF_MASTER, NUD_NOARP, NUD_PERMANENT, ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from nexus_netd.kernel import Bridge, Overlap, Tap
from nexus_netd.netlink import ACK, CREATE, DUMP, EXCL, REPLACE, Request, request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyroute2.netlink import nlmsg

    from nexus_netd.kernel import Plug

ANSWERS = {
    rtnl.RTM_NEWLINK: ifinfmsg,
    rtnl.RTM_NEWADDR: ifaddrmsg,
    rtnl.RTM_NEWROUTE: rtmsg,
}

_IFF_UP = 1
_NESTED = 0x8000  # NLA_F_NESTED: else the bridge takes the attribute for a port state
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_ADDR_GEN_MODE_NONE = 1
_DEFAULT = 1  # VPNs write their default route as 0.0.0.0/1 and 128.0.0.0/1
_MARK = "nexus-vm@"


def get_link(name: str) -> Request:
    """Ask for one link; a link that is not there is no failure."""
    return request(
        f"read link {name}",
        rtnl.RTM_GETLINK,
        ifinfmsg(),
        tolerate=(errno.ENODEV,),
        attrs=[("IFLA_IFNAME", name), ("IFLA_EXT_MASK", _SKIP_STATISTICS)],
    )


def list_taps() -> Request:
    """Ask for all TUN and TAP devices."""
    attrs = [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "tun")]})]
    return request("list TAPs", rtnl.RTM_GETLINK, ifinfmsg(), flags=DUMP, attrs=attrs)


def new_bridge(want: Bridge) -> Request:
    """Make the bridge. No STP, no snooping: a port forwards from the moment it is up."""
    data = {"attrs": [("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]}
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", data)]}
    return request(
        f"make bridge {want.name}",
        rtnl.RTM_NEWLINK,
        ifinfmsg(),
        flags=ACK | CREATE | EXCL,
        tolerate=(errno.EEXIST,),
        attrs=[("IFLA_IFNAME", want.name), ("IFLA_LINKINFO", info)],
    )


def set_bridge(want: Bridge) -> Request:
    """Set the bridge's MAC and MTU and bring it up.

    A bridge without a MAC of its own takes a port's, and changes it under the guests' ARP caches.
    """
    return request(
        f"set bridge {want.name}",
        rtnl.RTM_NEWLINK,
        ifinfmsg(),
        flags=ACK,
        flags_=_IFF_UP,
        change=_IFF_UP,
        attrs=[
            ("IFLA_IFNAME", want.name),
            ("IFLA_ADDRESS", want.mac),
            ("IFLA_MTU", want.mtu),
            *_without_ipv6(),
        ],
    )


def delete_link(name: str) -> Request:
    """Remove a link; one that is not there is no failure."""
    return request(
        f"remove link {name}",
        rtnl.RTM_DELLINK,
        ifinfmsg(),
        tolerate=(errno.ENODEV,),
        attrs=[("IFLA_IFNAME", name)],
    )


def plug(index: int, name: str, bridge: int, what: Plug) -> list[Request]:
    """Put a TAP on the bridge for its guest alone, mark it, and bring it up.

    For a link that is down, so that no frame passes before all is set. Learning is off and the
    port locked, with one fixed entry: a guest that sends from another's MAC is not heard and
    cannot draw its frames.
    """
    port = [
        ("IFLA_BRPORT_ISOLATED", 1),
        ("IFLA_BRPORT_LEARNING", 0),
        ("IFLA_BRPORT_LOCKED", 1),
        ("IFLA_BRPORT_UNICAST_FLOOD", 0),
    ]
    return [
        request(
            f"put {name} on {what.bridge}",
            rtnl.RTM_NEWLINK,
            ifinfmsg(),
            index=index,
            attrs=[
                ("IFLA_IFALIAS", f"{_MARK}{what.vm_id}"),
                ("IFLA_MTU", what.mtu),
                ("IFLA_MASTER", bridge),
                *_without_ipv6(),
            ],
        ),
        request(
            f"isolate {name}",
            rtnl.RTM_SETLINK,
            ifinfmsg(),
            family=socket.AF_BRIDGE,
            index=index,
            attrs=[("IFLA_PROTINFO", {"attrs": port}, _NESTED)],
        ),
        request(
            f"let {what.mac} in at {name}",
            rtnl.RTM_NEWNEIGH,
            ndmsg(),
            flags=ACK | CREATE | REPLACE,
            family=socket.AF_BRIDGE,
            ifindex=index,
            state=NUD_NOARP,
            flags_=NTF_MASTER,
            attrs=[("NDA_LLADDR", what.mac)],
        ),
        request(
            f"bring {name} up",
            rtnl.RTM_NEWLINK,
            ifinfmsg(),
            index=index,
            flags_=_IFF_UP,
            change=_IFF_UP,
        ),
    ]


def take_down(index: int, name: str) -> Request:
    """Take a link down: nothing passes while it is changed."""
    return request(f"take {name} down", rtnl.RTM_NEWLINK, ifinfmsg(), index=index, change=_IFF_UP)


def pin(bridge: int, address: IPv4Interface, mac: str) -> Request:
    """Fix the MAC of an address, so that no guest answers ARP for another."""
    return request(
        f"pin {address.ip} to {mac}",
        rtnl.RTM_NEWNEIGH,
        ndmsg(),
        flags=ACK | CREATE | REPLACE,
        family=socket.AF_INET,
        ifindex=bridge,
        state=NUD_PERMANENT,
        attrs=[("NDA_DST", str(address.ip)), ("NDA_LLADDR", mac)],
    )


def unpin(bridge: int, address: IPv4Interface) -> Request:
    """Undo `pin`; nothing to undo is no failure."""
    return request(
        f"unpin {address.ip}",
        rtnl.RTM_DELNEIGH,
        ndmsg(),
        tolerate=(errno.ENOENT,),
        family=socket.AF_INET,
        ifindex=bridge,
        attrs=[("NDA_DST", str(address.ip))],
    )


def list_addresses() -> Request:
    """Ask for all IPv4 addresses."""
    return request(
        "list addresses", rtnl.RTM_GETADDR, ifaddrmsg(), flags=DUMP, family=socket.AF_INET
    )


def new_address(bridge: int, address: IPv4Interface) -> Request:
    """Give the bridge an address."""
    return _address(rtnl.RTM_NEWADDR, bridge, address, ACK | CREATE | REPLACE)


def delete_address(bridge: int, address: IPv4Interface) -> Request:
    """Take an address from the bridge."""
    return _address(rtnl.RTM_DELADDR, bridge, address, ACK)


def list_routes() -> Request:
    """Ask for the IPv4 routes of all tables."""
    return request("list routes", rtnl.RTM_GETROUTE, rtmsg(), flags=DUMP, family=socket.AF_INET)


def as_bridge(link: nlmsg) -> Bridge:
    """Read a link as the bridge that it may be."""
    return Bridge(
        link.get_attr("IFLA_IFNAME"),
        link.get_attr("IFLA_ADDRESS") or "",
        link.get_attr("IFLA_MTU"),
        _kind(link),
        bool(link["flags"] & _IFF_UP),
    )


def as_tap(link: nlmsg, bridge: str | None) -> Tap:
    """Read a link as a TAP whose bridge has the name `bridge`."""
    alias = link.get_attr("IFLA_IFALIAS") or ""
    info = link.get_attr("IFLA_LINKINFO")
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    return Tap(
        link.get_attr("IFLA_IFNAME"),
        alias.removeprefix(_MARK) if alias.startswith(_MARK) else None,
        bridge,
        link.get_attr("IFLA_MTU"),
        bool(link["flags"] & _IFF_UP),
        bool(port and port.get_attr("IFLA_BRPORT_ISOLATED")),
        bool(port and port.get_attr("IFLA_BRPORT_LOCKED")),
    )


def is_tap(link: nlmsg) -> bool:
    """Whether the link is a TUN or TAP device."""
    return _kind(link) == "tun"


def addresses(messages: Iterable[nlmsg], bridge: int) -> list[IPv4Interface]:
    """Return the addresses of one link."""
    return [
        IPv4Interface((message.get_attr("IFA_LOCAL"), message["prefixlen"]))
        for message in messages
        if message["index"] == bridge
    ]


def overlaps(routes: Iterable[nlmsg], subnet: IPv4Network, bridge: int | None) -> Iterator[Overlap]:
    """Return the routes of others into `subnet`. Addresses are routes too, in the local table."""
    for route in routes:
        network = IPv4Network(
            (route.get_attr("RTA_DST") or "0.0.0.0", route["dst_len"])  # noqa: S104  # the default route
        )
        links = _links(route)
        if (
            route["dst_len"] > _DEFAULT
            and network.overlaps(subnet)
            and (bridge is None or links != {bridge})
        ):
            yield Overlap(network, ", ".join(sorted(map(link_name, links))) or "no link")


def link_name(index: int) -> str:
    """Return the name of a link, or its number if it has just gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"link {index}"


def _address(kind: int, bridge: int, address: IPv4Interface, flags: int) -> Request:
    return request(
        f"set address {address}",
        kind,
        ifaddrmsg(),
        flags=flags,
        family=socket.AF_INET,
        prefixlen=address.network.prefixlen,
        index=bridge,
        attrs=[
            ("IFA_LOCAL", str(address.ip)),
            ("IFA_ADDRESS", str(address.ip)),
            ("IFA_BROADCAST", str(address.network.broadcast_address)),
        ],
    )


def _without_ipv6() -> list[tuple[str, Any]]:
    """No link-local address, so that the host offers guests nothing over IPv6."""
    if not Path("/proc/sys/net/ipv6").exists():
        return []  # a kernel without IPv6 refuses the attribute
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)]}
    return [("IFLA_AF_SPEC", {"attrs": [("AF_INET6", mode)]})]


def _kind(link: nlmsg) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") if info else None) or ""


def _links(route: nlmsg) -> set[int]:
    several = route.get_attr("RTA_MULTIPATH")
    if several:
        return {hop["oif"] for hop in several}
    link = route.get_attr("RTA_OIF")
    return set() if link is None else {link}
