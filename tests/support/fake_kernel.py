"""The kernel port of netd in memory. Calls are counted; one of them can fail, or be the last."""

import errno
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from nexus_netd.kernel import KernelError, Overlap, Stamp


class Killed(BaseException):
    """The process was killed: nothing it does from here on reaches anything."""


@dataclass
class FakeKernel:
    links: dict = field(default_factory=dict)
    bridge_addresses: list = field(default_factory=list)
    routes: list = field(default_factory=list)
    is_forwarding: bool = False
    rules: object = None
    present: dict = field(default_factory=dict)
    owners: dict = field(default_factory=dict)
    pins: dict = field(default_factory=dict)
    generation: int = 1
    made: int = 0
    calls: list = field(default_factory=list)
    fail_at: int = 0
    kill_at: int = 0
    dead: bool = False

    def die_with_process(self):
        """What the kernel does when the process is gone: TAPs that were not kept go too."""
        for name in [name for name in self.present if name not in self.kept]:
            self._drop(name)
        self.dead = False
        self.fail_at = self.kill_at = 0
        self.calls.clear()

    @property
    def kept(self):
        return {name for name, owner in self.owners.items() if owner.kept}

    def _call(self, name):
        if self.dead:
            raise Killed
        self.calls.append(name)
        if len(self.calls) == self.kill_at:
            self.dead = True
            raise Killed
        if len(self.calls) == self.fail_at:
            raise KernelError(errno.ENOBUFS, f"{name}: injected")

    def _drop(self, name):
        self.present.pop(name)
        self.owners.pop(name, None)

    async def overlaps(self, subnet, bridge):
        self._call("overlaps")
        return [
            Overlap(network, link)
            for network, link in self.routes
            if network.overlaps(subnet) and link != bridge
        ]

    async def bridge(self, name):
        self._call("bridge")
        return self.links.get(name)

    async def put_bridge(self, want):
        self._call("put_bridge")
        if want.name not in self.links:
            self.made += 1
        self.links[want.name] = want

    async def remove_bridge(self, name):
        self._call("remove_bridge")
        self.bridge_addresses.clear()
        self.pins.clear()
        for tap in self.present.values():
            if tap.bridge == name:
                self.present[tap.name] = replace(tap, bridge=None, isolated=False, locked=False)
        return self.links.pop(name, None) is not None

    async def addresses(self, bridge):
        self._call("addresses")
        return list(self.bridge_addresses)

    async def put_address(self, bridge, address):
        self._call("put_address")
        self._need(bridge)
        self.bridge_addresses[:] = [address]

    async def forwarding(self):
        self._call("forwarding")
        return self.is_forwarding

    async def put_forwarding(self):
        self._call("put_forwarding")
        self.is_forwarding = True

    async def table(self):
        self._call("table")
        return self.rules

    async def put_table(self, want):
        self._call("put_table")
        self.rules = want
        self.generation += 1

    async def remove_table(self):
        self._call("remove_table")
        existed, self.rules = self.rules is not None, None
        self.generation += existed
        return existed

    async def stamp(self, bridge):
        self._call("stamp")
        return Stamp(self.made, self.generation) if bridge in self.links else None

    async def taps(self, bridge):
        self._call("taps")
        return [tap for tap in self.present.values() if tap.vm_id or tap.bridge == bridge]

    async def tap(self, name):
        self._call("tap")
        return self.present.get(name)

    @asynccontextmanager
    async def new_tap(self, plug, owner, name=None):
        self._call("new_tap")
        if name is None:
            name = next(name for n in range(100_000) if (name := f"nexus{n}") not in self.present)
        if name in self.present:
            raise KernelError(errno.EBUSY, f"make TAP {name}: Device or resource busy")
        self._need(plug.bridge)
        new = _NewTap(self, plug, name, owner)
        self.owners[name] = new
        self.present[name] = plug.tap(name)
        try:
            yield new
        except BaseException:
            if not self.dead:
                self._drop(name)
            raise

    async def plug_tap(self, name, plug):
        self._call("plug_tap")
        self._need(plug.bridge)
        self.present[name] = plug.tap(name)
        self.pins[plug.address] = plug.mac

    async def remove_tap(self, tap):
        self._call("remove_tap")
        found = self.present.get(tap.name)
        if found is None or found.vm_id != tap.vm_id:
            return False
        self._drop(tap.name)
        return True

    async def unpin(self, bridge, address):
        self._call("unpin")
        self.pins.pop(address, None)

    async def close(self):
        pass

    def _need(self, name):
        if name not in self.links:
            raise KernelError(errno.ENODEV, f"there is no link {name}")


@dataclass
class _NewTap:
    kernel: FakeKernel
    plug: object
    name: str
    owner: int
    kept: bool = False

    async def keep(self):
        self.kernel._call("keep")
        self.kernel.pins[self.plug.address] = self.plug.mac
        self.kept = True
