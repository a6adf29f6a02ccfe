"""Connections of guests that are gone: forgotten before anybody else has their addresses.

To find them the kernel walks over all of its connections, some 10 ms. So that is done behind a
detach, for as many as have gathered, and waited for only by who gets such an address at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError
from nexus_netd.operations.settle import cut_all

if TYPE_CHECKING:
    from collections.abc import Collection

    from nexus_netd.kernel import Kernel
    from nexus_netd.model import Address, NetworkSpec
    from nexus_netd.view import View

GATHER = 1.0
"""Seconds between walks: while one is under way, making a TAP waits for it (RCU)."""

_log = logging.getLogger(__name__)


class Stale:
    """Addresses that may have connections of a guest that is gone."""

    def __init__(self, kernel: Kernel, view: View, gather: float = GATHER) -> None:
        self._kernel = kernel
        self._view = view
        self._gather = gather
        self._addresses: dict[Address, None] = {}
        self._added = asyncio.Event()
        self._lock = asyncio.Lock()

    def add(self, addresses: Collection[Address]) -> None:
        """Note addresses that nobody has any more."""
        self._addresses.update(dict.fromkeys(addresses))
        self._added.set()

    async def find(self) -> None:
        """Note the addresses in our subnets that have connections and no guest, at start."""
        self.add(
            [
                source
                for source in await self._kernel.connections()
                if self._view.at_address(source) is None
                and any(_is_guests(spec, source) for spec in self._view.networks.values())
            ]
        )

    async def run(self) -> None:
        """Forget such connections as they come to be, for ever."""
        while True:
            await self._added.wait()
            await asyncio.sleep(self._gather)
            self._added.clear()
            try:
                await self.forget(list(self._addresses))
            except KernelError as error:
                _log.warning("connections of guests that are gone, tried again: %s", error)
                self._added.set()

    async def forget(self, addresses: Collection[Address]) -> None:
        """Have the connections of those of the addresses that are stale forgotten now."""
        if not any(address in self._addresses for address in addresses):
            return  # without waiting for the walk that is under way
        async with self._lock:
            stale = [address for address in addresses if address in self._addresses]
            if not stale:
                return
            await cut_all(self._kernel, stale)
            for address in stale:
                self._addresses.pop(address, None)


def _is_guests(spec: NetworkSpec, address: Address) -> bool:
    if address in (spec.gateway, spec.ipv6_gateway):
        return False
    return address in spec.subnet.network or (spec.ipv6 is not None and address in spec.ipv6)
