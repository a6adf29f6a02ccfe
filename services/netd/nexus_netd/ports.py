"""Ports: a lease and a TAP for each VM, made and taken away as one.

A new TAP lives on a descriptor of this process until its lease is stored; then it is made
persistent. Killed before, the TAP goes with the process; killed after, the lease says what is
missing, and `restore` brings it back under the same name.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError, Plug, Tap
from nexus_netd.leases import TapTaken
from nexus_netd.subnet import mac

if TYPE_CHECKING:
    from nexus_netd.kernel import Kernel
    from nexus_netd.leases import Lease, Leases
    from nexus_netd.subnet import Subnet

_log = logging.getLogger(__name__)


class Ports:
    """The ports of one bridge. Changes must not overlap: the caller holds a lock."""

    def __init__(
        self,
        kernel: Kernel,
        leases: Leases,
        *,
        bridge: str,
        subnet: Subnet,
        mtu: int,
        owner: int,
    ) -> None:
        self._kernel = kernel
        self._leases = leases
        self._bridge = bridge
        self._subnet = subnet
        self._mtu = mtu
        self._owner = owner

    async def attach(self, vm_id: str) -> Lease:
        """Return the VM's port, made or repaired. Raises ResourceExhausted, KernelError."""
        try:
            return await self._attach(vm_id)
        except TapTaken:
            # Somebody removed another port's TAP, and the kernel gave its name out again.
            await self.restore()
            return await self._attach(vm_id)

    async def detach(self, vm_id: str) -> bool:
        """Take the VM's port away. Returns whether there was one."""
        lease = await self._leases.get(vm_id)
        if lease is None:
            return False
        tap = await self._kernel.tap(lease.tap)
        if tap is not None and self._is_of(tap, lease):
            await self._kernel.remove_tap(tap)
        await self._kernel.unpin(self._bridge, self._subnet.interface(lease.host))
        # Last, so that the address is nobody else's while the TAP exists.
        await self._leases.remove(vm_id)
        return True

    async def restore(self) -> list[str]:
        """Bring the kernel's TAPs to what the leases say; return what was done, for people."""
        leases = {lease.tap: lease for lease in await self._leases.all()}
        done = []
        for tap in await self._kernel.taps(self._bridge):
            lease = leases.get(tap.name)
            if lease is None or not self._is_of(tap, lease):
                await self._kernel.remove_tap(tap)
                done.append(f"TAP {tap.name} removed: no port has it")
            elif tap == self._plug(lease.vm_id, lease.host).tap(lease.tap):
                del leases[tap.name]
        displaced = []
        for lease in leases.values():
            try:
                done += await self._repair(lease)
            except KernelError as error:
                if error.errno != errno.EBUSY:
                    raise
                displaced.append(lease)
        # Only now, when every name that a lease holds is in use, may the kernel choose others.
        for lease in displaced:
            done.append(await self._rename(lease))
        return done

    async def clear(self) -> tuple[list[str], int]:
        """Take every port away; return the TAPs removed and the number of leases given up."""
        taps = await self._kernel.taps(self._bridge)
        removed = [tap.name for tap in taps if await self._kernel.remove_tap(tap)]
        return removed, await self._leases.clear()

    async def _attach(self, vm_id: str) -> Lease:
        lease = await self._leases.get(vm_id)
        if lease is None:
            return await self._make(vm_id)
        try:
            await self._repair(lease)
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
            await self._rename(lease)
        return await self._leases.get(vm_id) or lease

    async def _make(self, vm_id: str) -> Lease:
        host = await self._leases.next_host()
        async with self._kernel.new_tap(self._plug(vm_id, host), self._owner) as tap:
            try:
                lease = await self._leases.add(vm_id, host, tap.name)
                await tap.keep()
            except BaseException:
                await self._leases.remove(vm_id)
                raise
        return lease

    async def _repair(self, lease: Lease) -> list[str]:
        """Bring back what is missing. KernelError EBUSY: the TAP's name is another's by now."""
        plug = self._plug(lease.vm_id, lease.host)
        tap = await self._kernel.tap(lease.tap)
        if tap == plug.tap(lease.tap):
            return []
        if tap is not None and self._is_of(tap, lease):
            await self._kernel.plug_tap(lease.tap, plug)
            return [f"TAP {lease.tap} repaired"]
        async with self._kernel.new_tap(plug, self._owner, lease.tap) as new:
            await new.keep()
        return [f"TAP {lease.tap} made again"]

    async def _rename(self, lease: Lease) -> str:
        """Make the lease a TAP of another name; the VM's own record is out of date from now on."""
        plug = self._plug(lease.vm_id, lease.host)
        async with self._kernel.new_tap(plug, self._owner) as new:
            await self._leases.rename(lease.vm_id, new.name)
            await new.keep()
        _log.warning("VM %s: TAP %s is another's, now %s", lease.vm_id, lease.tap, new.name)
        return f"TAP {new.name} made in the place of {lease.tap}, which is another's"

    def _is_of(self, tap: Tap, lease: Lease) -> bool:
        """Whether the TAP of that name is the lease's; its mark may have been wiped off."""
        return tap.vm_id == lease.vm_id or (tap.vm_id is None and tap.bridge == self._bridge)

    def _plug(self, vm_id: str, host: int) -> Plug:
        address = self._subnet.interface(host)
        return Plug(vm_id, self._bridge, address, mac(address.ip), self._mtu)
