"""What netd asks of the kernel: the port behind which netlink begins.

Every call is whole: cancelling the caller does not stop what the kernel has been asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from nexus_rpc.errors import Internal
from nexus_rpc.ids import vm_uid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from ipaddress import IPv4Address, IPv6Address

    from nexus_netd import model
    from nexus_netd.model import Address, Cidr, Guest
    from nexus_netd.rules.ruleset import Change, Contents, Element


MOST_FLOWS = 65_536
"""Tracked connections that one call looks at; where so many are found there may be more."""


class KernelError(Internal):
    """The kernel refused, or did not answer. The message says what was asked and what it said."""

    def __init__(self, errno: int | None, message: str) -> None:
        super().__init__("KERNEL", message)
        self.errno = errno


@dataclass(frozen=True)
class Bridge:
    """A link with a bridge's name: as it is, or as it should be.

    `network` is read from its ifalias, "nexus-network@NAME", and None where there is no such mark.
    `addresses` are all it has beyond link-local ones. `answers` tells whether each of them is a /32
    or /128, and whether all its settings are as they must be (`nexus_netd.linux.rtnl`, ANSWERS and
    BRIDGE): it answers ARP for guests at once, lets 127.0.0.1 be forwarded, neither sends redirects
    nor takes them or source routes, and no frame gets past our rules.
    """

    name: str
    network: str | None
    mac: str
    mtu: int
    addresses: frozenset[Address]
    kind: str = "bridge"
    up: bool = True
    answers: bool = True


@dataclass(frozen=True)
class Tap:
    """A TAP: as it is, or as it should be.

    `vm_id` is read from its ifalias, "nexus-vm@ID", and None where there is no such mark. `owner`
    is the uid that may open it without CAP_NET_ADMIN; None: everybody may (drivers/net/tun.c).
    `isolated`: it exchanges frames with the bridge alone. `locked`: only frames from `mac` come in
    (IFLA_BRPORT_LOCKED, Linux 5.18). `mac` is its one entry in the bridge's table, None where it
    has none or several. `addresses` are those that are routed to the bridge and whose neighbour
    entry is fixed to `mac`: none before NewTap.keep.
    """

    name: str
    vm_id: str | None
    owner: int | None
    bridge: str | None
    mtu: int
    mac: str | None
    addresses: frozenset[Address]
    up: bool = True
    isolated: bool = True
    locked: bool = True

    @classmethod
    def of(cls, guest: Guest, name: str = "") -> Tap:
        """Return the guest's TAP as it should be."""
        return cls(
            name or guest.tap,
            guest.vm_id,
            vm_uid(guest.vm_id),
            guest.bridge,
            guest.mtu,
            guest.mac,
            frozenset(guest.addresses),
        )


@dataclass(frozen=True)
class Overlap:
    """A route or address of somebody else that shares addresses with one of our subnets."""

    network: Cidr
    link: str
    subnet: Cidr


class Matter(Enum):
    """What a change in the kernel is about."""

    LINK = "link"
    """A TAP, a bridge, its addresses or settings, or a TAP's entry in a bridge's table."""
    ROUTES = "routes"
    """A route that is marked as ours."""
    NEIGHBOURS = "neighbours"
    """A neighbour on one of our bridges."""
    FORWARDING = "forwarding"
    RULES = "rules"
    """One of our tables, or something in it."""
    EVERYTHING = "everything"
    """Messages were lost."""


@dataclass(frozen=True)
class Changed:
    """Somebody, maybe this process, changed something.

    `name` is a link's name, a route's destination ("172.16.0.2/32"), or a neighbour's address.
    """

    matter: Matter
    name: str = ""


@dataclass(frozen=True)
class Flow:
    """A tracked connection, as its first packet was: from whom, to what.

    `port` is the destination port before any forwarding, 0 without ports; `key` is what the kernel
    knows it by. A `closed` one is remembered for a while, and does not count for limits. A `masked`
    one is answered to another address than its source.
    """

    source: Address
    destination: Address
    protocol: int
    port: int
    key: bytes = field(repr=False)
    closed: bool = field(default=False, compare=False)
    masked: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Refusal:
    """A packet that a rule refused. `reason` is of `rules.reasons`; `source` may be forged.

    `tap` is its name where the packet was refused on the bridge, "" if it has gone. None and 0
    where the packet has no such thing.
    """

    reason: str
    tap: str | None
    source: Address | None
    destination: Address | None
    protocol: int
    port: int


@dataclass(frozen=True)
class Counters:
    """What went through a TAP since it was made, as the guest sees it: `sent` is from the guest."""

    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int
    dropped_packets: int


@dataclass(frozen=True)
class Listener:
    """A socket of the host that takes connections or datagrams."""

    protocol: model.Protocol
    address: Address
    port: int


@dataclass(frozen=True)
class ForeignDrop:
    """A chain of somebody else's that drops what it does not name: "inet filter", "forward"."""

    table: str
    chain: str
    hook: str


class NewTap(Protocol):
    """A TAP that is in place, and gone with this process unless it is kept."""

    name: str

    async def keep(self) -> None:
        """Let the TAP outlive this process, and route its guest's addresses to it."""


class Kernel(Protocol):
    """The kernel's network, as far as netd goes. Everything raises KernelError."""

    async def overlaps(
        self, subnets: Collection[Cidr], bridges: Collection[str]
    ) -> Sequence[Overlap]:
        """Return others' routes and addresses in `subnets`; those of `bridges` are ours.

        The default route does not count, nor do routes marked as ours.
        """

    async def bridge(self, name: str) -> Bridge | None:
        """Return the link called `name`, whatever its kind."""

    async def bridges(self) -> Sequence[Bridge]:
        """Return the bridges with our mark."""

    async def put_bridge(self, want: Bridge) -> None:
        """Make the bridge, or bring it to what it should be, with exactly its addresses."""

    async def remove_bridge(self, name: str) -> bool:
        """Remove the bridge. Returns whether there was one."""

    async def subnets(self) -> frozenset[Cidr]:
        """Return the subnets that we made unreachable as a whole."""

    async def put_subnets(self, want: Collection[Cidr]) -> None:
        """Make exactly these subnets unreachable but for the addresses of ports."""

    async def forwarding(self) -> frozenset[int]:
        """Return the IP versions, 4 and 6, that the host forwards."""

    async def put_forwarding(self, version: int) -> None:
        """Let the host forward that IP version."""

    async def has_route_by_ra(self) -> Sequence[str]:
        """Return the links whose default IPv6 route would be lost by forwarding (accept_ra = 1)."""

    async def contents(self) -> Contents | None:
        """Return what is in our tables; None unless both are there."""

    async def put_contents(self, want: Contents, pins: Collection[Element] = ()) -> None:
        """Put skeletons and `want` in the place of our tables, in one transaction."""

    async def change(self, change: Change) -> None:
        """Change what is in our tables, in one transaction."""

    async def remove_tables(self) -> Sequence[str]:
        """Remove our tables; return those there were, "inet nexus" for instance."""

    async def pins(self) -> Mapping[Address, Mapping[tuple[Address, int], float]]:
        """Return the live pins by guest's address: (address, slot), and the seconds it has left."""

    async def denied(self) -> Mapping[Address, int]:
        """Return how many packets each guest was refused, by its address."""

    async def denied_of(self, guest: Guest) -> int:
        """Return how many packets one guest was refused, whatever the number of others."""

    async def foreign_drops(self) -> Sequence[ForeignDrop]:
        """Return others' base chains at input and forward whose policy is to drop."""

    async def taps(self) -> Sequence[Tap]:
        """Return the TAPs with our mark, and those on bridges with our mark."""

    async def tap(self, name: str) -> Tap | None:
        """Return the TAP called `name`."""

    def new_tap(self, guest: Guest, name: str | None = None) -> AbstractAsyncContextManager[NewTap]:
        """Make a TAP for the uid of the guest's VM, and plug it in; its name is free, or `name`.

        The guest's own `tap` is not looked at. It is gone at the end of the block, or of the
        process, unless it was kept, and if the block fails. A `name` that is taken is EBUSY.
        """

    async def plug_tap(self, guest: Guest) -> None:
        """Bring a TAP that exists to what it should be; addresses that are no more are unrouted."""

    async def give_tap(self, guest: Guest) -> bool:
        """Make a TAP that exists the uid's of the guest's VM; False while a process has it open."""

    async def remove_tap(self, tap: Tap) -> bool:
        """Remove the TAP with its routes, if it still has the mark of `tap`; return whether.

        It is gone from names, bridge and routes then; the kernel frees it a little later.
        """

    async def route(self, guest: Guest) -> None:
        """Route the guest's addresses to its bridge, and fix their MAC, as NewTap.keep does."""

    async def unroute(self, bridge: str, addresses: Collection[Address]) -> None:
        """Undo `route`, if anything is left of it."""

    async def counters(self) -> Mapping[str, Counters]:
        """Return what went through each of our TAPs. Lean: at most 50 ms for 4,000."""

    async def counters_of(self, tap: str) -> Counters | None:
        """Return what went through one TAP, whatever the number of others; None without it."""

    async def flows(self, addresses: Collection[Address]) -> Sequence[Flow]:
        """Return tracked connections that these addresses opened or answer, MOST_FLOWS at most."""

    async def cut(self, flows: Collection[Flow]) -> int:
        """Forget connections: their next packets are as new. Returns how many there still were."""

    async def connections(self) -> Mapping[Address, int]:
        """Return how many connections each source has; looks at 65,536 at most."""

    async def listeners(self) -> frozenset[Listener]:
        """Return the host's sockets that take TCP connections or UDP datagrams."""

    def events(self) -> AsyncIterator[Changed]:
        """Tell of changes for ever, from the moment of the call.

        What this object did itself is left out where the kernel says who did it: rules always.
        """

    def refusals(self) -> AsyncIterator[Refusal]:
        """Tell of refused packets for ever, at most 10 a second for each guest.

        EPERM when another process of this network namespace is told of them.
        """

    async def local(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the address is one of the host's own."""
