"""What ports may reach: policies, limits, and pins of names. Changes hold the turn, pins do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_netd.operations.pins import matches
from nexus_netd.operations.settle import settle
from nexus_netd.operations.state import of_pins
from nexus_netd.rules import elements
from nexus_netd.rules.ruleset import Change
from nexus_rpc.addresses import may_be_given
from nexus_rpc.errors import NotFound, invalid_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus_netd.model import Address, EgressRule, Limits, Policy
    from nexus_netd.operations.repair import Repair
    from nexus_netd.operations.state import State

LONGEST_PIN = 86_400.0
"""Seconds; no resolver should keep an answer for longer (RFC 8767)."""


class Egress:
    """Policies, limits and pins."""

    def __init__(self, state: State, repair: Repair) -> None:
        self._state = state
        self._repair = repair
        self._view = state.view

    async def set_policy(self, vm_id: str, policy: Policy | None) -> int:
        """Set a port's policy, None for the network's; return how many connections were cut.

        Raises NotFound, KernelError.
        """
        state, store = self._state, self._state.store
        port = state.port(vm_id)
        if port.policy == policy:
            return 0
        await self._repair.stand(port.network)
        before = self._view.guests[vm_id].policy
        after = state.network(port.network).default_policy if policy is None else policy
        numbers = state.policies(before, after)
        kept, swept = store.policies.keep, store.policies.sweep
        changed = replace(port, policy=policy)
        cut = await state.change_settled(
            lambda: state.wants.of_guests([vm_id], numbers),
            [kept(policy), store.leases.put(changed), swept(port.policy)],
            [kept(port.policy), store.leases.put(port), swept(policy)],
            [vm_id],
            repin=[vm_id],
        )
        state.feed.tell("changed", vm_id, port.network, f"policy set, {cut} connections cut")
        return cut

    async def set_limits(self, vm_id: str, limits: Limits) -> None:
        """Set a port's limits; 0 is the network's. Raises NotFound, KernelError."""
        state, store = self._state, self._state.store
        port = state.port(vm_id)
        if port.limits == limits:
            return
        await self._repair.stand(port.network)
        await state.change(
            lambda: state.wants.of_guests([vm_id], ()),
            [store.leases.put(replace(port, limits=limits))],
            [store.leases.put(port)],
        )
        state.feed.tell("changed", vm_id, port.network, "limits set")

    async def settle_all(self) -> None:
        """Cut what changes of policy left open that were cut short by the end of the process."""
        store = self._state.store
        vm_ids = await store.leases.unsettled()
        if vm_ids:
            await settle(self._state.kernel, self._view, self._state.pins, vm_ids)
            await store.commit(store.leases.settle(vm_ids))

    async def take_up_pins(self) -> None:
        """Take up the pins that the kernel has, at start, before the rules are compared.

        Those of unsettled ports go: they may be of another policy, whose slots meant other names;
        so do those of nobody.
        """
        if await self._state.kernel.contents() is None:
            return
        unsettled = set(await self._state.store.leases.unsettled())
        for source, live in (await self._state.kernel.pins()).items():
            vm_id = self._view.at_address(source)
            if vm_id is not None and vm_id not in unsettled:
                self._state.pins.load(vm_id, self._view.guests[vm_id].policy, live)
            else:
                gone = tuple(elements.of_pin(source, *key, 0.0) for key in live)
                await self._state.kernel.change(Change(remove=gone))

    async def pin(
        self,
        vm_id: str,
        domain: str,
        addresses: Sequence[Address],
        ttl: float,
        slots: Sequence[int],
    ) -> None:
        """Let a guest reach addresses that it is given for a name, for `ttl` seconds.

        The resolver asks for it, which has no say in what is allowed: the slots must be rules of
        the guest's policy that allow the name, the addresses public, or allowed by a rule's cidr.
        Raises NotFound, InvalidArgument, KernelError; then the guest may ask again.
        """
        self._state.port(vm_id)
        if self._state.pins.is_leaving(vm_id):
            raise NotFound("PORT_NOT_FOUND", f"VM {vm_id} is being detached", vm_id=vm_id)
        guest = self._view.guests[vm_id]
        rules = guest.policy.rules
        if not 0 < ttl <= LONGEST_PIN:
            raise invalid_field("ttl", ttl, f"above 0, at most {LONGEST_PIN:.0f} seconds")
        for slot in slots:
            if not (0 <= slot < len(rules) and _allows(rules[slot], domain)):
                raise invalid_field("slots", slot, f"the place of a rule that allows {domain!r}")
        for address in addresses:
            if not _may_be_pinned(address, rules):
                raise invalid_field(
                    "addresses", str(address), "a public address, or one that a rule's cidr allows"
                )
        versions = {address.version for address in guest.addresses}
        keys = [
            (address, slot)
            for address in addresses
            if address.version in versions
            for slot in slots
        ]
        # From here to the kernel's queue nothing else runs: a change of policy is before or after.
        renewal = self._state.pins.give(vm_id, domain, keys, ttl)
        change = Change(
            remove=of_pins(guest, dict.fromkeys(renewal.remove, 0.0)),
            add=of_pins(guest, renewal.add),
        )
        try:
            await self._state.tell(change, write=False)
        except BaseException:
            self._state.pins.doubt(vm_id, renewal.add)
            raise


def _allows(rule: EgressRule, domain: str) -> bool:
    return rule.allow and bool(rule.domain) and matches(rule.domain, domain)


def _may_be_pinned(address: Address, rules: Sequence[EgressRule]) -> bool:
    return may_be_given(address, [rule.cidr for rule in rules if rule.allow and rule.cidr])
