"""The kernel port of netd in memory. Calls are counted; one of them can fail, or be the last."""

import asyncio
import errno
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from nexus_netd.kernel import MOST_FLOWS, Counters, KernelError, Listener, Overlap, Tap
from nexus_netd.rules.ruleset import Contents
from nexus_rpc.ids import vm_uid


class Killed(BaseException):
    """The process was killed: nothing it does from here on reaches anything."""


@dataclass
class FakeKernel:
    links: dict = field(default_factory=dict)
    foreign_routes: list = field(default_factory=list)
    unreachable: frozenset = frozenset()
    versions: set = field(default_factory=set)
    advertised: list = field(default_factory=list)
    addresses: set = field(default_factory=set)
    elements: dict = None
    chains: set = field(default_factory=set)
    intact: bool = True
    pinned: dict = field(default_factory=dict)
    present: dict = field(default_factory=dict)
    made: dict = field(default_factory=dict)
    held: set = field(default_factory=set)
    routed: dict = field(default_factory=dict)
    tracked: list = field(default_factory=list)
    listening: set = field(default_factory=set)
    most_flows: int = MOST_FLOWS
    drops: list = field(default_factory=list)
    through: dict = field(default_factory=dict)
    refused: dict = field(default_factory=dict)
    changed: asyncio.Queue = field(default_factory=asyncio.Queue)
    packets: asyncio.Queue = field(default_factory=asyncio.Queue)
    calls: list = field(default_factory=list)
    fail_at: int = 0
    kill_at: int = 0
    dead: bool = False

    async def fails_at(self, number, work):
        """Do the work while the call of that number fails; whether it came to that."""
        self.calls.clear()
        self.fail_at = number
        try:
            await work
        except KernelError:
            return True
        finally:
            self.fail_at = 0
        return False

    async def kills_at(self, number, work):
        """Do the work until the process dies at the call of that number; whether it came to it."""
        self.calls.clear()
        self.kill_at = number
        try:
            await work
        except Killed:
            self.die_with_process()
            return True
        finally:
            self.kill_at = 0
        return False

    def die_with_process(self):
        """What the kernel does when the process is gone: TAPs that were not kept go too."""
        for name in [name for name in self.present if name not in self.kept]:
            self._drop(name)
        self.dead = False
        self.fail_at = self.kill_at = 0
        self.calls.clear()

    @property
    def kept(self):
        return {name for name, tap in self.made.items() if tap.kept}

    @property
    def empty(self):
        """Whether nothing of ours is left."""
        ours = [link for link in self.links.values() if link.network]
        return not (ours or self.present or self.routed or self.unreachable) and not self.has_tables

    @property
    def has_tables(self):
        return self.elements is not None

    @property
    def rules(self):
        """The contents of our tables."""
        return Contents(frozenset(self.elements.values()), frozenset(self.chains), self.intact)

    def flush(self):
        """What `nft flush ruleset` does."""
        self.elements = None
        self.chains.clear()
        self.pinned.clear()

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
        self.made.pop(name, None)

    async def overlaps(self, subnets, bridges):
        self._call("overlaps")
        return [
            Overlap(network, link, subnet)
            for network, link in self.foreign_routes
            for subnet in subnets
            if network.version == subnet.version
            and network.overlaps(subnet)
            and link not in bridges
        ]

    async def bridge(self, name):
        self._call("bridge")
        return self.links.get(name)

    async def bridges(self):
        self._call("bridges")
        return [link for link in self.links.values() if link.network is not None]

    async def put_bridge(self, want):
        self._call("put_bridge")
        self.links[want.name] = want

    async def remove_bridge(self, name):
        self._call("remove_bridge")
        for address in [one for one, (bridge, _) in self.routed.items() if bridge == name]:
            del self.routed[address]
        for tap in self.present.values():
            if tap.bridge == name:
                self.present[tap.name] = replace(
                    tap, bridge=None, mac=None, isolated=False, locked=False
                )
        return self.links.pop(name, None) is not None

    async def subnets(self):
        self._call("subnets")
        return self.unreachable

    async def put_subnets(self, want):
        self._call("put_subnets")
        self.unreachable = frozenset(want)

    async def forwarding(self):
        self._call("forwarding")
        return frozenset(self.versions)

    async def put_forwarding(self, version):
        self._call("put_forwarding")
        self.versions.add(version)

    async def has_route_by_ra(self):
        self._call("has_route_by_ra")
        return list(self.advertised)

    async def local(self, address):
        self._call("local")
        own = {one for link in self.links.values() for one in link.addresses}
        return address.is_loopback or address in self.addresses | own

    async def contents(self):
        self._call("contents")
        return self.rules if self.has_tables else None

    async def put_contents(self, want, pins=()):
        self._call("put_contents")
        self.elements = {_place(one): one for one in want.elements}
        assert len(self.elements) == len(want.elements), "two values for one place"
        self.chains = set(want.policies)
        self.intact = True
        self.pinned = {_place(one): one for one in pins}

    async def change(self, change):
        self._call("change")
        if not self.has_tables:
            raise KernelError(errno.ENOENT, "change nftables: No such file or directory")
        elements, pinned = dict(self.elements), dict(self.pinned)
        chains = self.chains - set(change.remove_policies)
        for one in change.remove:
            (pinned if one.set.startswith("pins") else elements).pop(_place(one), None)
        for one in change.add:
            into = pinned if one.set.startswith("pins") else elements
            if into.setdefault(_place(one), one) != one:
                raise KernelError(errno.EEXIST, "change nftables: File exists")
        self.elements, self.pinned = elements, pinned
        self.chains = chains | set(change.add_policies)

    async def remove_tables(self):
        self._call("remove_tables")
        existed = self.has_tables
        self.flush()
        return ["bridge nexus", "inet nexus"] if existed else []

    async def pins(self):
        self._call("pins")
        found = {}
        for one in self.pinned.values():
            length = 4 if one.set == "pins4" else 16
            source, address = (ip_address(one.key[n * length :][:length]) for n in (0, 1))
            slot = int.from_bytes(one.key[2 * length :], "little")
            found.setdefault(source, {})[address, slot] = one.timeout / 1_000
        return found

    async def denied(self):
        self._call("denied")
        return dict(self.refused)

    async def denied_of(self, guest):
        denied = await self.denied()
        return sum(denied.get(address, 0) for address in guest.addresses)

    async def foreign_drops(self):
        self._call("foreign_drops")
        return list(self.drops)

    async def taps(self):
        self._call("taps")
        ours = {link.name for link in self.links.values() if link.network is not None}
        return [
            self._with_routes(tap)
            for tap in self.present.values()
            if tap.vm_id or tap.bridge in ours
        ]

    async def tap(self, name):
        self._call("tap")
        found = self.present.get(name)
        return found and self._with_routes(found)

    @asynccontextmanager
    async def new_tap(self, guest, name=None):
        self._call("new_tap")
        if name is None:
            name = next(name for n in range(100_000) if (name := f"nexus{n}") not in self.present)
        if name in self.present:
            raise KernelError(errno.EBUSY, f"make TAP {name}: Device or resource busy")
        self._need(guest.bridge)
        new = _NewTap(self, guest, name)
        self.made[name] = new
        self.present[name] = replace(Tap.of(guest, name), addresses=frozenset())
        kept = False
        try:
            yield new
            kept = new.kept
        finally:
            if not kept and not self.dead:
                if new.kept:
                    self._unroute(guest.bridge, guest.addresses)
                self._drop(name)

    async def plug_tap(self, guest):
        self._call("plug_tap")
        self._need(guest.bridge)
        for address in [one for one, (_, mac) in self.routed.items() if mac == guest.mac]:
            del self.routed[address]
        owner = self.present[guest.tap].owner
        self.present[guest.tap] = replace(Tap.of(guest), owner=owner, addresses=frozenset())
        self._route(guest)

    async def give_tap(self, guest):
        self._call("give_tap")
        found = self.present.get(guest.tap)
        if found is None or found.name in self.held:
            return False
        self.present[guest.tap] = replace(found, owner=vm_uid(guest.vm_id))
        return True

    async def remove_tap(self, tap):
        self._call("remove_tap")
        found = self.present.get(tap.name)
        if found is None or found.vm_id != tap.vm_id:
            return False
        self._unroute(tap.bridge, tap.addresses)
        self._drop(tap.name)
        return True

    async def route(self, guest):
        self._call("route")
        self._need(guest.bridge)
        self._route(guest)

    async def unroute(self, bridge, addresses):
        self._call("unroute")
        self._unroute(bridge, addresses)

    async def counters(self):
        self._call("counters")
        nothing = Counters(0, 0, 0, 0, 0)
        return {name: self.through.get(name, nothing) for name in self.present}

    async def counters_of(self, tap):
        return (await self.counters()).get(tap)

    async def flows(self, addresses):
        self._call("flows")
        return [
            flow
            for flow in self.tracked
            if {flow.source, flow.destination, flow.key} & set(addresses)
        ][: self.most_flows]

    async def cut(self, flows):
        self._call("cut")
        before = len(self.tracked)
        self.tracked = [flow for flow in self.tracked if flow not in flows]
        return before - len(self.tracked)

    async def connections(self):
        self._call("connections")
        counts = {}
        for flow in self.tracked:
            counts[flow.source] = counts.get(flow.source, 0) + 1
        return counts

    async def listeners(self):
        self._call("listeners")
        return frozenset(self.listening)

    async def events(self):
        while True:
            yield await self.changed.get()

    async def refusals(self):
        while True:
            yield await self.packets.get()

    def listen(self, protocol, address, port):
        """Have a process of the host listen."""
        self.listening.add(Listener(protocol, address, port))

    def _with_routes(self, tap):
        own = {
            address
            for address, (bridge, mac) in self.routed.items()
            if bridge == tap.bridge and mac == tap.mac
        }
        return replace(tap, addresses=frozenset(own))

    def _route(self, guest):
        self.routed.update(dict.fromkeys(guest.addresses, (guest.bridge, guest.mac)))

    def _unroute(self, bridge, addresses):
        for address in addresses:
            if self.routed.get(address, ("", ""))[0] == bridge:
                del self.routed[address]

    def _need(self, name):
        if name not in self.links:
            raise KernelError(errno.ENODEV, f"there is no link {name}")


@dataclass
class _NewTap:
    kernel: FakeKernel
    guest: object
    name: str
    kept: bool = False

    async def keep(self):
        self.kernel._call("keep")
        self.kernel._need(self.guest.bridge)
        self.kernel._route(self.guest)
        self.kept = True


def _place(element):
    return (element.family, element.set, element.key)
