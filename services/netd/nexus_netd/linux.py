"""The kernel port on Linux: one thread that speaks rtnetlink, nfnetlink and TUN ioctls."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nexus_netd import nft, rtnl, tuntap
from nexus_netd.kernel import Bridge, KernelError, Overlap, Plug, Stamp, Tap
from nexus_netd.netlink import Netlink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from ipaddress import IPv4Interface, IPv4Network

    from pyroute2.netlink import nlmsg

    from nexus_netd.firewall import Table

_T = TypeVar("_T")

_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Linux:
    """The kernel of the network namespace that the service runs in."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")

    @classmethod
    async def open(cls) -> Linux:
        """Open the sockets. Raises KernelError."""
        linux = cls()
        try:
            await linux._run(linux._open)
        except BaseException:
            linux._thread.shutdown()
            raise
        return linux

    async def close(self) -> None:
        """Finish what is under way and close the sockets."""
        await self._run(self._close)
        self._thread.shutdown()

    async def overlaps(self, subnet: IPv4Network, bridge: str) -> Sequence[Overlap]:
        """See `nexus_netd.kernel.Kernel`, as for all that follow."""

        def work() -> list[Overlap]:
            routes = self._rtnl.dump(rtnl.list_routes())
            return list(rtnl.overlaps(routes, subnet, _index(bridge)))

        return await self._run(work)

    async def bridge(self, name: str) -> Bridge | None:
        """Return the link called `name`."""

        def work() -> Bridge | None:
            links = self._rtnl.run(rtnl.get_link(name))[0]
            return rtnl.as_bridge(links[0]) if links else None

        return await self._run(work)

    async def put_bridge(self, want: Bridge) -> None:
        """Make or repair the bridge."""
        await self._run(lambda: self._rtnl.run(rtnl.new_bridge(want), rtnl.set_bridge(want)))

    async def remove_bridge(self, name: str) -> bool:
        """Remove the bridge."""

        def work() -> bool:
            existed = _index(name) is not None
            self._rtnl.run(rtnl.delete_link(name))
            return existed

        return await self._run(work)

    async def addresses(self, bridge: str) -> Sequence[IPv4Interface]:
        """Return the bridge's IPv4 addresses."""
        return await self._run(lambda: self._addresses(bridge))

    async def put_address(self, bridge: str, address: IPv4Interface) -> None:
        """Make `address` the only one."""

        def work() -> None:
            index = _need(bridge)
            others = (other for other in self._addresses(bridge) if other != address)
            self._rtnl.run(
                *(rtnl.delete_address(index, other) for other in others),
                rtnl.new_address(index, address),
            )

        await self._run(work)

    async def forwarding(self) -> bool:
        """Whether the host forwards IPv4."""
        return await self._run(lambda: _FORWARDING.read_text().strip() == "1")

    async def put_forwarding(self) -> None:
        """Let the host forward IPv4."""

        def work() -> None:
            try:
                _FORWARDING.write_text("1")
            except OSError as error:
                raise KernelError(
                    error.errno,
                    f"{_FORWARDING} cannot be written ({error.strerror}): "
                    "set net.ipv4.ip_forward=1 by sysctl.d",
                ) from error

        await self._run(work)

    async def table(self) -> Table | None:
        """Return our table as it is."""
        return await self._run(lambda: nft.read(self._nft))

    async def put_table(self, want: Table) -> None:
        """Replace our table."""
        await self._run(lambda: nft.replace(self._nft, want))

    async def remove_table(self) -> bool:
        """Remove our table."""
        return await self._run(lambda: nft.remove(self._nft))

    async def stamp(self, bridge: str) -> Stamp | None:
        """Return the present's stamp."""

        def work() -> Stamp | None:
            index = _index(bridge)
            return None if index is None else Stamp(index, nft.generation(self._nft))

        return await self._run(work)

    async def taps(self, bridge: str) -> Sequence[Tap]:
        """Return the TAPs that are ours to look after."""

        def work() -> list[Tap]:
            found = [self._as_tap(link) for link in self._rtnl.dump(rtnl.list_taps())]
            return [tap for tap in found if tap.vm_id or tap.bridge == bridge]

        return await self._run(work)

    async def tap(self, name: str) -> Tap | None:
        """Return one TAP."""
        return await self._run(lambda: self._tap(name))

    @asynccontextmanager
    async def new_tap(
        self, plug: Plug, owner: int, name: str | None = None
    ) -> AsyncIterator[_NewTap]:
        """Make and plug in a TAP."""
        new = _NewTap(self, plug)
        try:
            await self._run(lambda: new.open(owner, name))
            yield new
        except BaseException:
            await self._run(new.discard)
            raise

    async def plug_tap(self, name: str, plug: Plug) -> None:
        """Bring a TAP to what it should be."""

        def work() -> None:
            bridge, index = _need(plug.bridge), _need(name)
            self._rtnl.run(
                rtnl.take_down(index, name),
                *rtnl.plug(index, name, bridge, plug),
                rtnl.pin(bridge, plug.address, plug.mac),
            )

        await self._run(work)

    async def remove_tap(self, tap: Tap) -> bool:
        """Remove a TAP."""

        def work() -> bool:
            found = self._tap(tap.name)
            if found is None or found.vm_id != tap.vm_id:
                return False
            self._rtnl.run(rtnl.delete_link(tap.name))
            return True

        return await self._run(work)

    async def unpin(self, bridge: str, address: IPv4Interface) -> None:
        """Undo the pin."""

        def work() -> None:
            index = _index(bridge)
            if index is not None:
                self._rtnl.run(rtnl.unpin(index, address))

        await self._run(work)

    async def _run(self, work: Callable[[], _T]) -> _T:
        # Shielded: what has been handed to the thread is done, and in order, whoever goes away.
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, work))

    def _open(self) -> None:
        self._rtnl = Netlink(socket.NETLINK_ROUTE, rtnl.ANSWERS)
        self._nft = Netlink(nft.PROTOCOL, nft.ANSWERS)

    def _close(self) -> None:
        self._rtnl.close()
        self._nft.close()

    def _addresses(self, bridge: str) -> list[IPv4Interface]:
        index = _index(bridge)
        if index is None:
            return []
        return rtnl.addresses(self._rtnl.dump(rtnl.list_addresses()), index)

    def _tap(self, name: str) -> Tap | None:
        links = [link for link in self._rtnl.run(rtnl.get_link(name))[0] if rtnl.is_tap(link)]
        return self._as_tap(links[0]) if links else None

    def _as_tap(self, link: nlmsg) -> Tap:
        master = link.get_attr("IFLA_MASTER")
        return rtnl.as_tap(link, rtnl.link_name(master) if master else None)


class _NewTap:
    """A TAP whose life hangs on a descriptor of this process until it is kept."""

    def __init__(self, linux: Linux, plug: Plug) -> None:
        self._linux = linux
        self._plug = plug
        self._descriptor: int | None = None
        self.name = ""

    async def keep(self) -> None:
        """Make it persistent and let go of it, so that the VM can open it."""
        await self._linux._run(self._keep)

    def open(self, owner: int, name: str | None) -> None:
        """Make it and plug it in."""
        self._descriptor, self.name = tuntap.create(owner, name)
        bridge = _need(self._plug.bridge)
        self._linux._rtnl.run(*rtnl.plug(_need(self.name), self.name, bridge, self._plug))

    def discard(self) -> None:
        """Let it go, kept or not."""
        if self._descriptor is not None:
            self._close()
        elif self.name:
            self._linux._rtnl.run(rtnl.delete_link(self.name))

    def _keep(self) -> None:
        bridge = _need(self._plug.bridge)
        self._linux._rtnl.run(rtnl.pin(bridge, self._plug.address, self._plug.mac))
        if self._descriptor is not None:
            tuntap.persist(self._descriptor, self.name)
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _need(name: str) -> int:
    index = _index(name)
    if index is None:
        raise KernelError(errno.ENODEV, f"there is no link {name}")
    return index
