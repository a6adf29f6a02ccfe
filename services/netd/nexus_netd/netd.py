"""The operations of netd, one change at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.firewall import NAME
from nexus_rpc.errors import NexusError, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_netd.leases import Lease, Leases
    from nexus_netd.network import Network
    from nexus_netd.ports import Ports

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

    async def reconcile(self) -> None:
        """Bring the kernel to what the store says, at start; report what was done.

        A host that is not fit for it now (its subnet in use) does not stop the service: calls
        say what is wrong, and succeed once it is put right.
        """
        try:
            done = await self.ensure()
        except NexusError as error:
            _log.error("no network: %s", error)  # the message is the whole story
            return
        for line in done:
            _log.warning("reconciled: %s", line)

    async def ensure(self) -> list[str]:
        """Make or repair network and TAPs; return what had to be done, for people."""
        async with self._lock:
            return [*await self._network.ensure(), *await self._ports.restore()]

    async def attach(self, vm_id: str) -> Lease:
        """Return the VM's port, made or repaired."""
        async with self._lock:
            if await self._network.ready():
                # The network was broken: the other ports are too.
                await self._ports.restore()
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
