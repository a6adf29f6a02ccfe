"""rtnetlink's messages about links: bridges, TAPs, and what they let through.

pyroute2 encodes them; they are sent by `port`, several at a time, and `present` reads the answers.
Numbers are those of linux/rtnetlink.h, if_link.h, neighbour.h, ip.h, ipv6.h.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from nexus_netd.linux.netlink import (
    ACK,
    CREATE,
    DUMP,
    EXCL,
    REPLACE,
    Request,
    attribute,
    encoded,
    nest,
    text,
    u8,
    u32,
)

if TYPE_CHECKING:
    from nexus_netd.kernel import Bridge
    from nexus_netd.model import Guest

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
_SETNEIGHTBL = 67

LINK = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
NEIGHBOUR = struct.Struct("=B3xiHBB")
"""struct ndmsg: family, index, state, flags, type."""

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC = 18, 20, 26
INFO_KIND, INFO_DATA, INFO_SLAVE_DATA = 1, 2, 5
BRPORT_ISOLATED, BRPORT_LOCKED = 33, 39
INET_CONF, INET6_CONF, _INET6_ADDR_GEN_MODE = 1, 2, 8
NDA_DST, NDA_LLADDR = 1, 2
_NDTA_NAME, _NDTA_PARMS, _NDTPA_IFINDEX, _NDTPA_PROXY_DELAY = 1, 6, 1, 13

IFF_UP = 1
NUD_NOARP, NUD_PERMANENT = 0x40, 0x80
NTF_MASTER = 0x04
_LEAN = ("IFLA_EXT_MASK", 1 << 3)  # RTEXT_FILTER_SKIP_STATS
_ADDR_GEN_MODE_NONE = 1

ANSWERS = {
    1: 1,  # forwarding: all others of the host go by this one's value, too
    3: 1,  # proxy_arp: for what is behind other links
    4: 0,  # accept_redirects
    5: 0,  # secure_redirects
    6: 0,  # send_redirects
    9: 0,  # accept_source_route
    25: 1,  # proxy_arp_pvlan: for other guests on the same bridge (RFC 3069)
    26: 1,  # route_localnet: publications on 127.0.0.1
}
"""What a bridge's IPv4 settings must be: linux/ip.h IPV4_DEVCONF_*, ip-sysctl."""

BRIDGE = {
    5: bytes(4),  # stp_state: a port forwards from the moment it is up
    # group_fwd_mask: frames to LLDP's address are forwarded, and so meet our rules; the kernel
    # would take them past all hooks of the bridge, as if they had come to the TAP itself.
    9: (1 << 0xE).to_bytes(2, sys.byteorder),
    23: bytes(1),  # mcast_snooping
    # vlan_default_pvid: else each entry of its table is there twice, for a VLAN that nobody uses.
    39: bytes(2),
}
"""What a bridge must be itself, as far as the kernel knows it: linux/if_link.h IFLA_BR_*."""

VM_MARK, NETWORK_MARK = "nexus-vm@", "nexus-network@"


def get_link(link: str | int) -> Request:
    """Ask for one link, by name or index; one that is not there is no failure."""
    index, name = (link, []) if isinstance(link, int) else (0, [("IFLA_IFNAME", link)])
    return Request(
        f"read link {link}",
        GETLINK,
        ACK,
        encoded(ifinfmsg(), [*name, _LEAN], index=index),
        frozenset({errno.ENODEV}),
    )


def list_links(kind: str) -> Request:
    """Ask for all links of one kind, "tun" or "bridge"."""
    return Request(
        f"list links of kind {kind}",
        GETLINK,
        DUMP,
        encoded(ifinfmsg(), [("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind)]}), _LEAN]),
    )


def make_bridge(want: Bridge) -> Request:
    """Make the bridge, unless there is one."""
    return Request(
        f"make bridge {want.name}",
        NEWLINK,
        ACK | CREATE | EXCL,
        encoded(
            ifinfmsg(),
            [
                ("IFLA_IFNAME", want.name),
                ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
            ],
        ),
        frozenset({errno.EEXIST}),
    )


def set_bridge(want: Bridge, mac: str) -> Request:
    """Set all of a bridge that has the MAC `mac`, and bring it up.

    A bridge whose MAC was never set takes a port's, and changes it under the guests' ARP caches.
    """
    answers = b"".join(u32(*item) for item in ANSWERS.items())
    own = (attribute(*item) for item in BRIDGE.items())
    # To set it, even to what it is, makes the kernel forget all neighbours on the link.
    address = [] if mac == want.mac else [("IFLA_ADDRESS", want.mac)]
    return Request(
        f"set bridge {want.name}",
        NEWLINK,
        ACK,
        encoded(
            ifinfmsg(),
            [
                ("IFLA_IFNAME", want.name),
                ("IFLA_IFALIAS", f"{NETWORK_MARK}{want.network}"),
                *address,
                ("IFLA_MTU", want.mtu),
            ],
            flags_=IFF_UP,
            change=IFF_UP,
        )
        # By number: `present` compares them so with what the kernel lists.
        + nest(IFLA_LINKINFO, text(INFO_KIND, "bridge"), nest(INFO_DATA, *own))
        + nest(IFLA_AF_SPEC, nest(socket.AF_INET, nest(INET_CONF, answers)), *_no_link_local()),
    )


def answer_at_once(index: int, name: str) -> Request:
    """Let the bridge answer ARP for guests at once, not after up to 0.8 s (proxy_delay)."""
    parameters = nest(
        _NDTA_PARMS,
        u32(_NDTPA_IFINDEX, index),
        attribute(_NDTPA_PROXY_DELAY, bytes(8)),
    )
    return Request(
        f"set proxy_delay of {name}",
        _SETNEIGHTBL,
        ACK,
        bytes([socket.AF_INET, 0, 0, 0]) + text(_NDTA_NAME, "arp_cache") + parameters,
    )


def delete_link(index: int, name: str) -> Request:
    """Remove a link; one that is not there is no failure."""
    return Request(
        f"remove link {name}",
        DELLINK,
        ACK,
        encoded(ifinfmsg(), index=index),
        frozenset({errno.ENODEV}),
    )


def plug(index: int, name: str, bridge: int, guest: Guest) -> list[Request]:
    """Put a TAP on the bridge for its guest alone, mark it, and bring it up.

    For a link that is down, so that no frame passes before all is set. Learning is off and the
    port locked, with one fixed entry: a guest that sends from another's MAC is not heard and
    cannot draw its frames. Nothing is flooded to it: its neighbour entries are fixed.
    """
    port = [
        ("IFLA_BRPORT_ISOLATED", 1),
        ("IFLA_BRPORT_LOCKED", 1),
        ("IFLA_BRPORT_LEARNING", 0),
        ("IFLA_BRPORT_UNICAST_FLOOD", 0),
        ("IFLA_BRPORT_MCAST_FLOOD", 0),
        ("IFLA_BRPORT_BCAST_FLOOD", 0),
    ]
    slave = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": port})]
    return [
        Request(
            f"put {name} on {guest.bridge}",
            NEWLINK,
            ACK,
            encoded(
                ifinfmsg(),
                [
                    ("IFLA_IFALIAS", f"{VM_MARK}{guest.vm_id}"),
                    ("IFLA_MTU", guest.mtu),
                    ("IFLA_MASTER", bridge),
                ],
                index=index,
            )
            + nest(IFLA_AF_SPEC, *_no_link_local()),
        ),
        Request(
            f"let {guest.mac} in at {name}",
            NEWNEIGH,
            ACK | CREATE | REPLACE,
            encoded(
                ndmsg(),
                [("NDA_LLADDR", guest.mac)],
                family=socket.AF_BRIDGE,
                ifindex=index,
                state=NUD_NOARP,
                flags_=NTF_MASTER,
            ),
        ),
        # The kernel sets what the bridge's port is to be before the link comes up.
        Request(
            f"isolate {name} and bring it up",
            NEWLINK,
            ACK,
            encoded(
                ifinfmsg(),
                [("IFLA_LINKINFO", {"attrs": slave})],
                index=index,
                flags_=IFF_UP,
                change=IFF_UP,
            ),
        ),
    ]


def take_down(index: int, name: str) -> Request:
    """Take a link down: nothing passes while it is changed."""
    body = encoded(ifinfmsg(), index=index, change=IFF_UP)
    return Request(f"take {name} down", NEWLINK, ACK, body)


def let_no_more_in(index: int, name: str, mac: bytes) -> Request:
    """Undo a TAP's entry for a MAC that is not its guest's; none to undo is no failure."""
    return Request(
        f"let {mac.hex(':')} in at {name} no more",
        DELNEIGH,
        ACK,
        encoded(
            ndmsg(),
            [("NDA_LLADDR", mac.hex(":"))],
            family=socket.AF_BRIDGE,
            ifindex=index,
            flags_=NTF_MASTER,
        ),
        frozenset({errno.ENOENT}),
    )


def list_macs(bridge: int = 0, port: int = 0) -> Request:
    """Ask for the entries of all bridges' tables, or of one bridge's for one port."""
    narrow = [("NDA_MASTER", bridge)] if bridge else []
    return Request(
        "list bridges' tables",
        GETNEIGH,
        DUMP,
        encoded(ndmsg(), narrow, family=socket.AF_BRIDGE, ifindex=port),
    )


def mac_bytes(mac: str) -> bytes:
    """Return the 6 bytes of "02:fc:ac:10:00:02"."""
    return bytes.fromhex(mac.replace(":", ""))


def has_ipv6() -> bool:
    """Whether the kernel has IPv6; one without it refuses what is said about it."""
    return Path("/proc/sys/net/ipv6").exists()


def _no_link_local() -> tuple[bytes, ...]:
    """No link-local address: the gateway answers ND with its own, and the host offers no other."""
    if not has_ipv6():
        return ()
    return (nest(socket.AF_INET6, u8(_INET6_ADDR_GEN_MODE, _ADDR_GEN_MODE_NONE)),)
