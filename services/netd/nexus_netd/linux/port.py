"""The kernel port on Linux: rtnetlink, nfnetlink and TUN ioctls, all on threads.

What changes is done in order on one thread; what takes long to read is read on another, so that no
attach waits for it; what waits for RCU has threads of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from nexus_netd.kernel import KernelError
from nexus_netd.linux import bridges, conntrack, nflog, nft, sockets, taps, tuntap
from nexus_netd.linux.events import Events
from nexus_netd.linux.names import index_of
from nexus_netd.linux.newtap import DescribedTap
from nexus_netd.linux.worker import Removals, Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping, Sequence

    from nexus_netd.kernel import (
        Bridge,
        Changed,
        Counters,
        Flow,
        ForeignDrop,
        Listener,
        Overlap,
        Refusal,
        Tap,
    )
    from nexus_netd.linux.stream import Stream
    from nexus_netd.model import Address, Cidr, Guest
    from nexus_netd.rules.ruleset import Change, Contents, Element

_T = TypeVar("_T")


class Linux:
    """The kernel of the network namespace that the service runs in: `nexus_netd.kernel.Kernel`."""

    def __init__(self) -> None:
        self._changes = Worker("changes")
        self._reads = Worker("reads")
        self._removals = Removals()
        self._numbers = itertools.count()
        self._bridges: set[str] = set()
        self._streams: set[Stream[Any]] = set()
        self._under_way: set[asyncio.Task[Any]] = set()
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls) -> Linux:
        """Open the sockets. Raises KernelError."""
        linux = cls()
        async with AsyncExitStack() as stack:
            try:
                for worker in (linux._changes, linux._reads):
                    await worker.open()
                    stack.push_async_callback(worker.close)
                linux._removals.open()
                stack.push_async_callback(linux._removals.close)
            except OSError as error:
                raise KernelError(error.errno, f"open netlink sockets: {error.strerror}") from error
            stack.push_async_callback(linux._finish)
            linux._stack = stack.pop_all()
        return linux

    async def close(self) -> None:
        """Finish what is under way, end what is told, and close the sockets."""
        await self._stack.aclose()

    async def overlaps(
        self, subnets: Collection[Cidr], bridges_: Collection[str]
    ) -> Sequence[Overlap]:
        """Return others' routes and addresses in subnets."""
        return await self._reads.on_route(bridges.overlaps, subnets, bridges_)

    async def bridge(self, name: str) -> Bridge | None:
        """Return a link, whatever its kind."""
        return await self._changes.on_route(bridges.read, name)

    async def bridges(self) -> Sequence[Bridge]:
        """Return the bridges with our mark."""
        found = await self._changes.on_route(bridges.marked)
        self._bridges.update(bridge.name for bridge in found)
        return found

    async def put_bridge(self, want: Bridge) -> None:
        """Make or repair a bridge."""
        self._bridges.add(want.name)
        await self._changes.on_route(bridges.put, want)

    async def remove_bridge(self, name: str) -> bool:
        """Remove a bridge."""
        index = await self._changes.run(lambda: index_of(name))
        if index is None:
            return False
        await self._whole(self._removals.remove(index, name))
        self._bridges.discard(name)
        return True

    async def subnets(self) -> frozenset[Cidr]:
        """Return the subnets that are unreachable as a whole."""
        return await self._changes.on_route(bridges.subnets)

    async def put_subnets(self, want: Collection[Cidr]) -> None:
        """Make exactly these subnets unreachable."""
        await self._changes.on_route(bridges.put_subnets, want)

    async def forwarding(self) -> frozenset[int]:
        """Return the IP versions that are forwarded."""
        return await self._changes.run(bridges.forwarding)

    async def put_forwarding(self, version: int) -> None:
        """Forward an IP version."""
        await self._changes.run(lambda: bridges.put_forwarding(version))

    async def has_route_by_ra(self) -> Sequence[str]:
        """Return links whose default IPv6 route would be lost."""
        return await self._reads.on_route(bridges.by_advertisement)

    async def local(self, address: Address) -> bool:
        """Whether the address is the host's own."""
        return await self._changes.on_route(bridges.is_local, address)

    async def contents(self) -> Contents | None:
        """Return what is in our tables."""
        return await self._reads.on_rules(nft.read)

    async def put_contents(self, want: Contents, pins: Collection[Element] = ()) -> None:
        """Replace our tables."""
        await self._changes.on_rules(nft.replace, want, pins)

    async def change(self, change: Change) -> None:
        """Change our tables."""
        await self._changes.on_rules(nft.change, change)

    async def remove_tables(self) -> Sequence[str]:
        """Remove our tables."""
        return await self._changes.on_rules(nft.remove)

    async def pins(self) -> Mapping[Address, Mapping[tuple[Address, int], float]]:
        """Return the live pins of all guests."""
        return await self._reads.on_rules(nft.pins)

    async def denied(self) -> Mapping[Address, int]:
        """Return how many packets each guest was refused."""
        return await self._reads.on_rules(nft.denied)

    async def denied_of(self, guest: Guest) -> int:
        """Return how many packets one guest was refused."""
        return await self._reads.on_rules(nft.denied_of, guest)

    async def foreign_drops(self) -> Sequence[ForeignDrop]:
        """Return others' chains that drop."""
        return await self._reads.on_rules(nft.foreign_drops)

    async def taps(self) -> Sequence[Tap]:
        """Return the TAPs that are ours to look after."""
        return await self._reads.on_route(taps.marked)

    async def tap(self, name: str) -> Tap | None:
        """Return one TAP."""
        return await self._changes.on_route(taps.read, name)

    @asynccontextmanager
    async def new_tap(self, guest: Guest, name: str | None = None) -> AsyncIterator[DescribedTap]:
        """Make a TAP and plug it in; gone at the end unless it was kept, and if the block fails.

        Raises FailedPrecondition (TUN_UNAVAILABLE), KernelError.
        """
        new = DescribedTap(self._changes, self._removals, guest)
        kept = False
        try:
            await new.open(self._names() if name is None else (name,))
            yield new
            kept = new.kept
        finally:
            if not kept:
                await self._whole(new.discard())

    async def plug_tap(self, guest: Guest) -> None:
        """Bring a TAP to what it should be."""
        await self._changes.on_route(taps.plug, guest)

    async def give_tap(self, guest: Guest) -> bool:
        """Make a TAP its VM's own."""
        return await self._changes.on_route(taps.give, guest)

    async def remove_tap(self, tap: Tap) -> bool:
        """Remove a TAP with its routes."""
        return await self._whole(self._remove_tap(tap))

    async def route(self, guest: Guest) -> None:
        """Route a guest's addresses."""
        await self._changes.on_route(taps.route, guest)

    async def unroute(self, bridge: str, addresses: Collection[Address]) -> None:
        """Undo what is left of a guest's routes."""
        await self._changes.on_route(taps.unroute, bridge, addresses)

    async def counters(self) -> Mapping[str, Counters]:
        """Return what went through each TAP."""
        return await self._reads.on_route(taps.counters)

    async def counters_of(self, tap: str) -> Counters | None:
        """Return what went through one TAP."""
        return await self._reads.on_route(taps.counters_of, tap)

    async def flows(self, addresses: Collection[Address]) -> Sequence[Flow]:
        """Return tracked connections."""
        return await self._reads.run(lambda: conntrack.flows(addresses))

    async def cut(self, flows: Collection[Flow]) -> int:
        """Forget connections."""
        return await self._reads.run(lambda: conntrack.cut(flows))

    async def connections(self) -> Mapping[Address, int]:
        """Return how many connections each source has."""
        return await self._reads.run(conntrack.count)

    async def listeners(self) -> frozenset[Listener]:
        """Return the host's sockets that listen."""
        return await self._reads.run(sockets.listeners)

    def events(self) -> Stream[Changed]:
        """Tell of changes from now on."""
        own = (*self._changes.ports, *self._reads.ports)
        try:
            stream = Events(self._bridges).listen(own)
        except OSError as error:
            raise KernelError(error.errno, f"hear of changes: {error.strerror}") from error
        self._streams.add(stream)
        return stream

    async def refusals(self) -> AsyncIterator[Refusal]:
        """Tell of refused packets."""
        stream = nflog.listen(await self._reads.run(nflog.bind))
        self._streams.add(stream)
        try:
            async for refusal in stream:
                yield refusal
        finally:
            self._streams.discard(stream)
            stream.close()

    async def _finish(self) -> None:
        for stream in self._streams:
            stream.close()
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _remove_tap(self, tap: Tap) -> bool:
        index = await self._changes.on_route(taps.isolate, tap)
        if index is None:
            return False
        await self._removals.remove(index, tap.name)
        return True

    async def _whole(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do several steps to the end, whoever goes away meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    def _names(self) -> Iterable[str]:
        """Return names for TAPs that nobody asked for yet; the kernel says which are free."""
        return (f"{tuntap.PREFIX}{number}" for number in self._numbers)
