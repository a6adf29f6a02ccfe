"""Comparing the kernel with the store, and putting right what differs. Calls hold the turn."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

from nexus_netd import metrics, ruleset
from nexus_netd.fitness import check
from nexus_netd.kernel import Bridge, KernelError, Matter, Tap
from nexus_netd.ruleset import Change
from nexus_netd.subnet import mac
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from nexus_netd.kernel import Changed
    from nexus_netd.model import Address, Cidr, Guest, NetworkSpec
    from nexus_netd.state import State

    Look = Callable[[], Awaitable[list["Repaired"]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repaired:
    """One thing that was put right: which, what was done (for people), and whose it is."""

    thing: str
    what: str
    vm_id: str = ""
    network: str = ""


class Repair:
    """What looks at the kernel's side of `state`, thing by thing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kernel = state.kernel
        self._view = state.view

    async def everything(self) -> list[Repaired]:
        """Look at everything; what fails is looked at again by the guard.

        Without rules nothing else is made. A network that the host is not fit for is left out;
        `State.problems` says why.
        """
        self._state.wanted = True
        done: list[Repaired] = []
        try:
            await self.fitness()
            for look in (self.rules, self.bridges, self.subnets, self.forwarding):
                done += await look()
            self._state.standing = True
            done += await self.taps()
        except NexusError:
            self._state.suspect()
            raise
        finally:
            self._tell(done)
        return done

    async def some(self, changed: Collection[Changed]) -> list[Repaired]:
        """Look at what the changes name, and at nothing else."""
        if any(one.matter is Matter.EVERYTHING for one in changed):
            return await self.everything()
        looks: dict[str, Look] = {}
        # What others stand on comes first, whatever was told first: a route needs its bridge up.
        for one in sorted(changed, key=self._rank):
            looks.update(self._looks(one))
        done: list[Repaired] = []
        failures: list[NexusError] = []
        for look in looks.values():
            done += await self._attempt(look, failures)
        self._tell(done)
        if failures:
            raise failures[0]
        return done

    async def stand(self, network: str = "") -> None:
        """Have everything in place for a change that concerns the network. Raises its problem."""
        if not self._state.standing or network in self._state.problems:
            try:
                await self.everything()
            except NexusError:
                # Another port's trouble is not this one's.
                if not self._state.standing:
                    raise
        if network in self._state.problems:
            raise self._state.problems[network]

    async def network(self, spec: NetworkSpec) -> None:
        """Have what one network needs beside rules and ports, which is new or changed.

        Raises FailedPrecondition, KernelError.
        """
        for name in self._view.bridges_of(spec.name):
            await self.bridge(name)
        await self.subnets()
        await self.forwarding()

    async def fitness(self) -> list[Repaired]:
        """See which networks the host is fit for; one that is there already is left alone."""
        problems: dict[str, NexusError] = {}
        for spec in self._view.networks.values():
            try:
                await check(self._kernel, spec, self._view.bridges_of(spec.name))
            except NexusError as problem:
                if isinstance(problem, KernelError):
                    raise
                problems[spec.name] = problem
                if str(problem) != str(self._state.problems.get(spec.name)):
                    _log.error("network %s is not made: %s", spec.name, problem)
        self._state.problems = problems
        self._state.wants.absent = set(problems)
        return []

    async def rules(self) -> list[Repaired]:
        """Have our tables hold what they must, and nothing else."""
        have = await self._kernel.contents()
        if have is None or not have.intact:
            await self._state.write_tables()
            return [Repaired("rules", f"tables {ruleset.NAME} written")]
        want = self._state.wants.everything()
        change = Change(
            remove=tuple(have.elements - want.elements),
            add=tuple(want.elements - have.elements),
            remove_policies=tuple(have.policies - want.policies),
            add_policies=tuple(want.policies - have.policies),
        )
        gone = len(change.remove) + len(change.remove_policies)
        come = len(change.add) + len(change.add_policies)
        if not gone and not come:
            return []
        await self._kernel.change(change)
        return [Repaired("rules", f"rules repaired: {gone} taken out, {come} put in")]

    async def bridges(self) -> list[Repaired]:
        """Have the bridges of all networks, and no other with our mark."""
        done: list[Repaired] = []
        wanted = {want.name: want for want in self._wanted_bridges()}
        for name in wanted:
            done += await self.bridge(name)
        for found in await self._kernel.bridges():
            if found.name not in wanted and await self._kernel.remove_bridge(found.name):
                done.append(
                    Repaired(
                        f"bridge {found.name}",
                        f"bridge {found.name} removed: no network needs it",
                        network=found.network or "",
                    )
                )
        return done

    async def bridge(self, name: str) -> list[Repaired]:
        """Have one bridge as it must be, if there must be one."""
        want = next((one for one in self._wanted_bridges() if one.name == name), None)
        if want is None:
            return []
        have = await self._kernel.bridge(name)
        if have == want:
            return []
        await self._kernel.put_bridge(want)
        what = "made" if have is None else "repaired"
        return [Repaired(f"bridge {name}", f"bridge {name} {what}", network=want.network or "")]

    async def subnets(self) -> list[Repaired]:
        """Have the subnets of all networks unreachable but for guests."""
        wanted = frozenset(self._wanted_subnets())
        if await self._kernel.subnets() == wanted:
            return []
        await self._kernel.put_subnets(wanted)
        told = ", ".join(sorted(map(str, wanted))) or "none"
        return [Repaired("subnets", f"routes of subnets set: {told}")]

    async def forwarding(self) -> list[Repaired]:
        """Have the host forward what networks need."""
        present = [
            spec for name, spec in self._view.networks.items() if name not in self._state.problems
        ]
        wanted = ({4} if present else set()) | ({6} if any(one.ipv6 for one in present) else set())
        missing = sorted(wanted - await self._kernel.forwarding())
        for version in missing:
            await self._kernel.put_forwarding(version)
        return [
            Repaired(f"IPv{version} forwarding", f"IPv{version} forwarding turned on")
            for version in missing
        ]

    async def taps(self) -> list[Repaired]:
        """Have the TAPs of all ports, and no other with our mark or on our bridges."""
        done: list[Repaired] = []
        failures: list[NexusError] = []
        missing = {
            guest.tap: guest
            for vm_id, guest in self._view.guests.items()
            if self._view.ports[vm_id].network not in self._state.problems
        }
        for tap in await self._kernel.taps():
            guest = missing.get(tap.name)
            if guest is None and self._waits(tap):
                continue
            if guest is None or not self.is_of(tap, guest):
                done += await self._remove(tap)
            elif tap == Tap.of(guest):
                del missing[tap.name]
        displaced = []
        for guest in missing.values():
            try:
                done += await self.tap(guest)
            except KernelError as error:
                if error.errno == errno.EBUSY:
                    displaced.append(guest)
                else:
                    failures.append(error)
        # Only now, when every name that a port holds is in use, may the kernel choose others.
        for guest in displaced:
            done.append(await self.rename(guest))
        if failures:
            raise failures[0]
        return done

    async def tap(self, guest: Guest) -> list[Repaired]:
        """Have one guest's TAP. KernelError EBUSY: its name is another's by now."""
        thing = f"TAP {guest.tap}"
        network = self._view.ports[guest.vm_id].network
        have = await self._kernel.tap(guest.tap)
        if have == Tap.of(guest):
            return []
        if have is not None and self.is_of(have, guest):
            await self._kernel.plug_tap(guest)
            return [Repaired(thing, f"{thing} repaired", guest.vm_id, network)]
        async with self._kernel.new_tap(guest, self._state.owner, guest.tap) as new:
            await new.keep()
        return [Repaired(thing, f"{thing} made again", guest.vm_id, network)]

    async def rename(self, guest: Guest) -> Repaired:
        """Make the guest a TAP of another name; vmm's record is out of date from now on."""
        state, port = self._state, self._view.ports[guest.vm_id]
        async with self._kernel.new_tap(guest, state.owner) as new:
            await state.change(
                lambda: state.wants.of_vms([guest.vm_id], ()),
                [state.store.leases.put(replace(port, tap=new.name))],
                [state.store.leases.put(port)],
            )
            await new.keep()
        _log.warning("VM %s: TAP %s is another's, now %s", guest.vm_id, guest.tap, new.name)
        return Repaired(
            f"TAP {guest.tap}",
            f"TAP {new.name} made in the place of {guest.tap}, which is another's",
            guest.vm_id,
            port.network,
        )

    def is_of(self, tap: Tap, guest: Guest) -> bool:
        """Whether the TAP of that name is the guest's; its mark may have been wiped off."""
        return tap.vm_id == guest.vm_id or (tap.vm_id is None and self._is_ours(tap))

    def _rank(self, changed: Changed) -> int:
        """Return when a change has its turn: rules, then bridges, then what is on them."""
        if changed.matter is Matter.RULES:
            return 0
        return 1 if self._network_of(changed.name) is not None else 2

    def _looks(self, changed: Changed) -> Iterator[tuple[str, Look]]:
        match changed.matter:
            case Matter.RULES:
                yield "rules", self.rules
            case Matter.FORWARDING:
                yield "forwarding", self.forwarding
            case Matter.LINK:
                yield from self._looks_at_link(changed.name)
            case Matter.ROUTES | Matter.NEIGHBOURS:
                yield from self._looks_at_address(changed.name)
            case _:
                yield "everything", self.everything

    def _looks_at_link(self, name: str) -> Iterator[tuple[str, Look]]:
        network = self._network_of(name)
        vm_id = self._view.at_tap(name)
        if network is not None and network not in self._state.problems:
            yield name, lambda: self._bridge_with_taps(name)
        elif vm_id is not None:
            yield name, lambda: self._tap_or_rename(vm_id)
        else:
            yield name, lambda: self._stranger(name)

    def _looks_at_address(self, text: str) -> Iterator[tuple[str, Look]]:
        address = _host(text)
        if address is None:
            yield "subnets", self.subnets
            return
        vm_id = self._view.at_address(address)
        if vm_id is not None:
            yield self._view.guests[vm_id].tap, lambda: self._tap_or_rename(vm_id)

    async def _bridge_with_taps(self, name: str) -> list[Repaired]:
        """A bridge that was made anew has lost its ports, and routes that led to it are gone."""
        done = await self.bridge(name)
        return done + await self.taps() if done else []

    async def _tap_or_rename(self, vm_id: str) -> list[Repaired]:
        guest = self._view.guests.get(vm_id)
        if guest is None or self._view.ports[vm_id].network in self._state.problems:
            return []
        try:
            return await self.tap(guest)
        except KernelError as error:
            if error.errno != errno.EBUSY:
                raise
        return [await self.rename(guest)]

    async def _stranger(self, name: str) -> list[Repaired]:
        """A link that is none of ours, unless it has our mark or is on a bridge of ours."""
        tap = await self._kernel.tap(name)
        if tap is not None:
            return await self._remove(tap)
        bridge = await self._kernel.bridge(name)
        if bridge is not None and bridge.network is not None and bridge.kind == "bridge":
            return await self.bridges()
        return []

    async def _remove(self, tap: Tap) -> list[Repaired]:
        """Remove a TAP that no port has, but not the routes of one that has its addresses now."""
        free = frozenset(one for one in tap.addresses if self._view.at_address(one) is None)
        if not self._is_ours(tap) or not await self._kernel.remove_tap(
            replace(tap, addresses=free)
        ):
            return []
        what = f"TAP {tap.name} removed: no port has it"
        return [Repaired(f"TAP {tap.name}", what, tap.vm_id or "")]

    def _is_ours(self, tap: Tap) -> bool:
        return tap.vm_id is not None or (
            tap.bridge is not None and self._network_of(tap.bridge) is not None
        )

    def _waits(self, tap: Tap) -> bool:
        """Whether it belongs to a port whose network the host is not fit for now."""
        port = self._view.ports.get(tap.vm_id or "")
        return port is not None and port.tap == tap.name and port.network in self._state.problems

    def _network_of(self, bridge: str) -> str | None:
        for name in self._view.networks:
            if bridge in self._view.bridges_of(name):
                return name
        return None

    def _wanted_bridges(self) -> Iterator[Bridge]:
        for name, spec in self._view.networks.items():
            if name not in self._state.problems:
                for bridge in self._view.bridges_of(name):
                    yield bridge_of(spec, bridge)

    def _wanted_subnets(self) -> Iterator[Cidr]:
        for name, spec in self._view.networks.items():
            if name not in self._state.problems:
                yield spec.subnet.network
                if spec.ipv6:
                    yield spec.ipv6

    def _tell(self, done: Collection[Repaired]) -> None:
        for one in done:
            _log.warning("repaired: %s", one.what)
            self._state.feed.tell("repaired", one.vm_id, one.network, one.what)
        for kind, number in Counter(one.thing.split()[0] for one in done).items():
            metrics.repaired(kind, number)

    @staticmethod
    async def _attempt(look: Look, failures: list[NexusError]) -> list[Repaired]:
        try:
            return await look()
        except NexusError as error:
            failures.append(error)
            return []


def bridge_of(spec: NetworkSpec, name: str) -> Bridge:
    """Return a network's bridge as it should be."""
    gateways: tuple[Address | None, ...] = (spec.gateway, spec.ipv6_gateway)
    addresses = frozenset(gateway for gateway in gateways if gateway)
    return Bridge(name, spec.name, mac(spec.gateway), spec.mtu, addresses)


def _host(text: str) -> Address | None:
    """Return the address that a route or neighbour is for; None for more than one."""
    network = ip_network(text, strict=False)
    return network.network_address if network.prefixlen == network.max_prefixlen else None
