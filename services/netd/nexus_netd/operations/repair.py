"""Comparing the kernel with the store, and putting right what differs. Calls hold the turn."""

from __future__ import annotations

import logging
from collections import Counter
from ipaddress import ip_network
from typing import TYPE_CHECKING

from nexus_netd import metrics
from nexus_netd.kernel import Matter
from nexus_netd.operations.network_repair import NetworkRepair
from nexus_netd.operations.tap_repair import TapRepair
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator

    from nexus_netd.kernel import Changed
    from nexus_netd.model import Address
    from nexus_netd.operations.network_repair import Repaired
    from nexus_netd.operations.state import State

    Look = Callable[[], Awaitable[list[Repaired]]]

_log = logging.getLogger(__name__)

_MANY = 32
"""TAPs beyond which one look at all costs less than a look at each."""


class Repair:
    """What looks at the kernel's side of `state`, thing by thing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kernel = state.kernel
        self._view = state.view
        self.networks = NetworkRepair(state)
        self.taps = TapRepair(state, self.networks)

    async def everything(self) -> list[Repaired]:
        """Look at everything; what fails is looked at again by the guard.

        Without rules nothing else is made. A network that the host is not fit for is left out;
        `State.problems` says why.
        """
        self._state.wanted = True
        done: list[Repaired] = []
        try:
            await self.networks.fitness()
            for look in (
                self.networks.rules,
                self.networks.bridges,
                self.networks.subnets,
                self.networks.forwarding,
            ):
                done += await look()
            self._state.standing = True
            done += await self.taps.everything()
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
        taps: dict[str, Look] = {}
        for one in sorted(changed, key=lambda one: one.matter is not Matter.RULES):
            for thing, look in self._looks(one):
                (taps if self._view.at_tap(thing) else looks)[thing] = look
        done: list[Repaired] = []
        failures: list[NexusError] = []
        # TAPs come last: a route needs its bridge up, and a bridge that was not has lost them all.
        for look in looks.values():
            done += await self._attempt(look, failures)
        if len(taps) > _MANY or any(one.thing.startswith("bridge ") for one in done):
            taps = {"taps": self.taps.everything}
        for look in taps.values():
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

    def _looks(self, changed: Changed) -> Iterator[tuple[str, Look]]:
        match changed.matter:
            case Matter.RULES:
                yield "rules", self.networks.rules
            case Matter.FORWARDING:
                yield "forwarding", self.networks.forwarding
            case Matter.LINK:
                yield from self._looks_at_link(changed.name)
            case Matter.ROUTES | Matter.NEIGHBOURS:
                yield from self._looks_at_address(changed.name)
            case _:
                yield "everything", self.everything

    def _looks_at_link(self, name: str) -> Iterator[tuple[str, Look]]:
        network = self.networks.at_bridge(name)
        vm_id = self._view.at_tap(name)
        if network is not None and network not in self._state.problems:
            yield name, lambda: self.networks.bridge(name)
        elif vm_id is not None:
            yield name, lambda: self.taps.of(vm_id)
        else:
            yield name, lambda: self._stranger(name)

    def _looks_at_address(self, text: str) -> Iterator[tuple[str, Look]]:
        address = _host(text)
        if address is None:
            yield "subnets", self.networks.subnets
            return
        vm_id = self._view.at_address(address)
        if vm_id is not None:
            yield self._view.guests[vm_id].tap, lambda: self.taps.of(vm_id)

    async def _stranger(self, name: str) -> list[Repaired]:
        """A link that is none of ours, unless it has our mark or is on a bridge of ours."""
        tap = await self._kernel.tap(name)
        if tap is not None:
            return await self.taps.remove(tap)
        bridge = await self._kernel.bridge(name)
        if bridge is not None and bridge.network is not None and bridge.kind == "bridge":
            return await self.networks.bridges()
        return []

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


def _host(text: str) -> Address | None:
    """Return the address that a route or neighbour is for; None for more than one."""
    network = ip_network(text, strict=False)
    return network.network_address if network.prefixlen == network.max_prefixlen else None
