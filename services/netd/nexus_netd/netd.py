"""The operations of netd, one change at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.firewall import NAME
from nexus_netd.metrics import repairs
from nexus_rpc.errors import NexusError, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_netd.leases import Lease, Leases
    from nexus_netd.network import Network
    from nexus_netd.ports import Ports

INTERVAL = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Removed:
    """What a cleanup removed: TAPs by name, whether the bridge, tables, and leases in number."""

    taps: Sequence[str]
    bridge: bool
    tables: Sequence[str]
    leases: int


class Netd:
    """Network, ports and leases behind one lock; reads do not wait for it."""

    def __init__(self, network: Network, ports: Ports, leases: Leases) -> None:
        self._network = network
        self._ports = ports
        self._leases = leases
        self._lock = asyncio.Lock()
        self._unfinished = True

    async def reconcile(self) -> None:
        """Bring the kernel to what the store says, at start; report what was done.

        A host that is not fit for it now (its subnet in use) does not stop the service: calls
        say what is wrong, and succeed once it is put right.
        """
        try:
            await self.ensure()
        except NexusError as error:
            _log.error("no network: %s", error)  # the message is the whole story

    async def ensure(self) -> list[str]:
        """Make or repair network and TAPs; return what had to be done, for people."""
        async with self._lock:
            self._unfinished = True
            return await self._repair()

    async def guard(self, interval: float = INTERVAL) -> None:
        """Look every `interval` seconds whether others touched bridge or rules; repair them.

        A reload of the host's firewall (`nft flush ruleset`, as Debian's nftables.service does)
        takes our rules with it, and with them what keeps guests from the host.
        """
        told = ""
        while True:
            await asyncio.sleep(interval)
            try:
                async with self._lock:
                    if self._network.wanted and not await self._in_order():
                        await self._repair()
                told = ""
            except NexusError as error:
                if str(error) != told:
                    _log.error("network not repaired: %s", error)  # once, not at each look
                told = str(error)

    async def attach(self, vm_id: str) -> Lease:
        """Return the VM's port, made or repaired."""
        async with self._lock:
            if not await self._in_order():
                await self._repair()
            return await self._ports.attach(vm_id)

    async def detach(self, vm_id: str) -> bool:
        """Take the VM's port away. Returns whether there was one."""
        async with self._lock:
            return await self._ports.detach(vm_id)

    async def cleanup(self) -> Removed:
        """Remove everything."""
        async with self._lock:
            taps, leases = await self._ports.clear()
            bridge, table = await self._network.remove()
            return Removed(taps, bridge, [f"inet {NAME}"] if table else [], leases)

    async def get(self, vm_id: str) -> Lease:
        """Return the VM's port. Raises NotFound."""
        lease = await self._leases.get(vm_id)
        if lease is None:
            raise NotFound("PORT_NOT_FOUND", f"VM {vm_id} has no port; attach one", vm_id=vm_id)
        return lease

    async def page(self, after: int, size: int) -> Sequence[Lease]:
        """Return up to `size` ports with host numbers above `after`, by address."""
        return await self._leases.page(after, size)

    async def all(self) -> Sequence[Lease]:
        """Return all ports by address."""
        return await self._leases.all()

    async def _in_order(self) -> bool:
        return not self._unfinished and await self._network.untouched()

    async def _repair(self) -> list[str]:
        """Repair the network, and the ports if it was broken or that was not finished before."""
        done = await self._network.ensure()
        if done or self._unfinished:
            self._unfinished = True
            done += await self._ports.restore()
            self._unfinished = False
        for line in done:
            _log.warning("repaired: %s", line)
        repairs.add(len(done))
        return done
