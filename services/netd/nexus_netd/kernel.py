"""What netd asks of the kernel: the port behind which netlink begins.

Every call is whole: cancelling the caller does not stop what the kernel has been asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nexus_rpc.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from ipaddress import IPv4Interface, IPv4Network

    from nexus_netd.firewall import Table


class KernelError(Internal):
    """The kernel refused, or did not answer. The message says what was asked and what it said."""

    def __init__(self, errno: int | None, message: str) -> None:
        super().__init__("KERNEL", message)
        self.errno = errno


@dataclass(frozen=True)
class Bridge:
    """A link with the bridge's name: as it is, or as it should be."""

    name: str
    mac: str
    mtu: int
    kind: str = "bridge"
    up: bool = True


@dataclass(frozen=True)
class Tap:
    """A TAP: as it is, or as it should be.

    `vm_id` is read from its ifalias, "nexus-vm@ID", and None where there is no such mark.
    `isolated`: it exchanges frames with the bridge alone. `locked`: only frames from the
    guest's own MAC come in (IFLA_BRPORT_LOCKED, Linux 5.18).
    """

    name: str
    vm_id: str | None
    bridge: str | None
    mtu: int
    up: bool = True
    isolated: bool = True
    locked: bool = True


@dataclass(frozen=True)
class Plug:
    """What a TAP must let through to whom: the guest behind it."""

    vm_id: str
    bridge: str
    address: IPv4Interface
    mac: str
    mtu: int

    def tap(self, name: str) -> Tap:
        """Return the TAP as it should be."""
        return Tap(name, self.vm_id, self.bridge, self.mtu)


@dataclass(frozen=True)
class Overlap:
    """A route or address of somebody else that shares addresses with our subnet."""

    network: IPv4Network
    link: str


@dataclass(frozen=True)
class Stamp:
    """Changes whenever the bridge is replaced or anybody touches any nftables rule."""

    bridge: int
    rules: int


class NewTap(Protocol):
    """A TAP that is in place, and gone with this process unless it is kept."""

    name: str

    async def keep(self) -> None:
        """Let the TAP outlive this process, and pin the guest's MAC to its address."""


class Kernel(Protocol):
    """The kernel's network, as far as netd goes. Everything raises KernelError."""

    async def overlaps(self, subnet: IPv4Network, bridge: str) -> Sequence[Overlap]:
        """Return routes and addresses that overlap `subnet`, but for the bridge's own.

        The default route does not count.
        """

    async def bridge(self, name: str) -> Bridge | None:
        """Return the link called `name`, whatever its kind."""

    async def put_bridge(self, want: Bridge) -> None:
        """Make the bridge, or bring it to what it should be."""

    async def remove_bridge(self, name: str) -> bool:
        """Remove the bridge. Returns whether there was one."""

    async def addresses(self, bridge: str) -> Sequence[IPv4Interface]:
        """Return the bridge's IPv4 addresses."""

    async def put_address(self, bridge: str, address: IPv4Interface) -> None:
        """Make `address` the bridge's only IPv4 address."""

    async def forwarding(self) -> bool:
        """Whether the host forwards IPv4."""

    async def put_forwarding(self) -> None:
        """Let the host forward IPv4."""

    async def table(self) -> Table | None:
        """Return our nftables table as it is."""

    async def put_table(self, want: Table) -> None:
        """Put `want` in the place of our table, in one transaction."""

    async def remove_table(self) -> bool:
        """Remove our table. Returns whether there was one."""

    async def stamp(self, bridge: str) -> Stamp | None:
        """Return the stamp of the present, None without a bridge. Cheap."""

    async def taps(self, bridge: str) -> Sequence[Tap]:
        """Return the TAPs on the bridge, and those with our mark anywhere."""

    async def tap(self, name: str) -> Tap | None:
        """Return the TAP called `name`."""

    def new_tap(
        self, plug: Plug, owner: int, name: str | None = None
    ) -> AbstractAsyncContextManager[NewTap]:
        """Make a TAP for the uid `owner` and plug it in; without `name` the kernel names it.

        It is gone at the end of the block, or of the process, unless it was kept. A `name` that
        is taken is EBUSY.
        """

    async def plug_tap(self, name: str, plug: Plug) -> None:
        """Bring a TAP that exists to what it should be."""

    async def remove_tap(self, tap: Tap) -> bool:
        """Remove the TAP if it still has the mark that `tap` has. Returns whether it did."""

    async def unpin(self, bridge: str, address: IPv4Interface) -> None:
        """Undo what NewTap.keep did for the address, if anything is left of it."""
