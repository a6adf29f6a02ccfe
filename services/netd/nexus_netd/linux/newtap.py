"""A TAP whose life hangs on a descriptor of this process until it is kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nexus_netd.linux import rtnl, taps, tuntap
from nexus_netd.linux.names import need
from nexus_rpc.ids import vm_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexus_netd.linux.netlink import Netlink
    from nexus_netd.linux.worker import Removals, Worker
    from nexus_netd.model import Guest


class DescribedTap:
    """A TAP that is in place, and gone with this process unless it is kept."""

    def __init__(self, changes: Worker, removals: Removals, guest: Guest) -> None:
        self._changes = changes
        self._removals = removals
        self._guest = guest
        self._descriptor: int | None = None
        self._index = 0
        self._routed = False
        self.name = ""

    @property
    def kept(self) -> bool:
        """Whether it outlives this process."""
        return bool(self.name) and self._descriptor is None

    async def open(self, names: Iterable[str]) -> None:
        """Make it under the first free name, and plug it in."""
        await self._changes.on_route(self._open, names)

    async def keep(self) -> None:
        """Let the TAP outlive this process, and route its guest's addresses to it."""
        await self._changes.on_route(self._keep)

    async def discard(self) -> None:
        """Let it go, kept or not, with its routes."""
        descriptor = await self._changes.on_route(self._let_go)
        if descriptor is not None:
            await self._removals.run(lambda: os.close(descriptor))
        if self._index:
            # It may have been kept, or made persistent just before something failed.
            await self._removals.remove(self._index, self.name)

    def _open(self, netlink: Netlink, names: Iterable[str]) -> None:
        bridge = need(self._guest.bridge)
        self._descriptor, self.name = tuntap.create(vm_uid(self._guest.vm_id), names)
        self._index = need(self.name)
        netlink.run(*rtnl.plug(self._index, self.name, bridge, self._guest))

    def _keep(self, netlink: Netlink) -> None:
        self._routed = True
        taps.route(netlink, self._guest)
        if self._descriptor is not None:
            tuntap.persist(self._descriptor, self.name)
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def _let_go(self, netlink: Netlink) -> int | None:
        """Take the routes, and return the descriptor: behind all that was asked for before."""
        if self._routed:
            taps.unroute(netlink, self._guest.bridge, self._guest.addresses)
        descriptor, self._descriptor = self._descriptor, None
        return descriptor
