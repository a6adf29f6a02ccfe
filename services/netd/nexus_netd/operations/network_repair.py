"""What networks stand on, repaired: rules, bridges, routes of subnets, forwarding."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.kernel import Bridge, KernelError
from nexus_netd.operations.fitness import check
from nexus_netd.rules import ruleset
from nexus_netd.rules.ruleset import Change
from nexus_netd.subnet import mac
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nexus_netd.model import Address, Cidr, NetworkSpec
    from nexus_netd.operations.state import State

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repaired:
    """One thing that was put right: which, what was done (for people), and whose it is."""

    thing: str
    what: str
    vm_id: str = ""
    network: str = ""


class NetworkRepair:
    """What looks at the kernel's side of networks, thing by thing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kernel = state.kernel
        self._view = state.view

    async def network(self, spec: NetworkSpec) -> None:
        """Have what one network needs beside rules and ports, which is new or changed.

        Raises FailedPrecondition, KernelError.
        """
        for name in self._view.bridges_of(spec.name):
            await self.bridge(name)
        await self.subnets()
        await self.forwarding()

    async def fitness(self) -> None:
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

    async def rules(self) -> list[Repaired]:
        """Have our tables hold what they must, and nothing else."""
        have = await self._kernel.contents()
        if have is None or not have.intact:
            await self._state.write_tables(gone=have is None)
            return [Repaired("rules", f"tables {ruleset.NAME} written")]
        await self._state.close_gap()
        want = await self._state.everything_wanted()
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
        for want in wanted.values():
            done += await self._bridge(want)
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
        return await self._bridge(want) if want else []

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

    def at_bridge(self, name: str) -> str | None:
        """Return the network that a bridge is of."""
        for network in self._view.networks:
            if name in self._view.bridges_of(network):
                return network
        return None

    async def _bridge(self, want: Bridge) -> list[Repaired]:
        have = await self._kernel.bridge(want.name)
        if have == want:
            return []
        await self._kernel.put_bridge(want)
        thing, how = f"bridge {want.name}", "made" if have is None else "repaired"
        return [Repaired(thing, f"{thing} {how}", network=want.network or "")]

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


def bridge_of(spec: NetworkSpec, name: str) -> Bridge:
    """Return a network's bridge as it should be."""
    gateways: tuple[Address | None, ...] = (spec.gateway, spec.ipv6_gateway)
    addresses = frozenset(gateway for gateway in gateways if gateway)
    return Bridge(name, spec.name, mac(spec.gateway), spec.mtu, addresses)
