"""What our tables must hold, made from the view: of one guest, one network, or of everything.

An operation takes it before and after its change to the store; the difference is what the kernel
is told, in one transaction. Elements that two things share are so never taken away by one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.model import Mode
from nexus_netd.rules import elements, policy
from nexus_netd.rules.ruleset import Change, Contents, Element

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from nexus_netd.model import Guest, Link, Policy
    from nexus_netd.rules.ruleset import PolicyChain
    from nexus_netd.view import View


@dataclass(frozen=True)
class Wanted:
    """Elements, and the policies with rules that guests have, by number."""

    elements: frozenset[Element]
    policies: Mapping[int, Policy]

    def with_all(self, other: Wanted) -> Wanted:
        """Return these and those."""
        return Wanted(self.elements | other.elements, {**self.policies, **other.policies})

    def until(self, after: Wanted) -> Change:
        """Return what leads from these to those."""
        return Change(
            remove=tuple(self.elements - after.elements),
            add=tuple(after.elements - self.elements),
            remove_policies=_chains(self.policies, self.policies.keys() - after.policies.keys()),
            add_policies=_chains(after.policies, after.policies.keys() - self.policies.keys()),
        )


NOTHING = Wanted(frozenset(), {})


class Wants:
    """What must be in the kernel for what the view has; networks in `absent` are not there."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.absent: set[str] = set()

    def of_vms(self, vm_ids: Iterable[str], numbers: Collection[int]) -> Wanted:
        """Return what VMs need: their own, their links and publications, and policies `numbers`."""
        found = set[Element]()
        for vm_id in vm_ids:
            guest = self._guest(vm_id)
            if guest is not None:
                found.update(elements.of_guest(guest), self._ways(guest))
        return Wanted(frozenset(found), self._with_rules(numbers))

    def of_guests(self, vm_ids: Iterable[str], numbers: Collection[int]) -> Wanted:
        """Return what guests need without their links and publications, and policies `numbers`."""
        guests = filter(None, map(self._guest, vm_ids))
        found = frozenset(one for guest in guests for one in elements.of_guest(guest))
        return Wanted(found, self._with_rules(numbers))

    def of_network(self, name: str) -> Wanted:
        """Return what a network needs beside its guests."""
        spec = self._view.networks.get(name)
        if spec is None or name in self.absent:
            return NOTHING
        return Wanted(frozenset(elements.of_network(spec, self._view.bridges_of(name))), {})

    def of_links(self, vm_id: str) -> Wanted:
        """Return what the links from a VM need."""
        return Wanted(frozenset(self._of_links(self._view.links_from(vm_id))), {})

    def of_publications(self, vm_id: str) -> Wanted:
        """Return what a VM's publications need."""
        guest = self._guest(vm_id)
        if guest is None:
            return NOTHING
        return Wanted(frozenset(self._of_publications(guest)), {})

    def everything(self) -> Contents:
        """Return all that our tables must hold."""
        found = set[Element]()
        for name in self._view.networks:
            found.update(self.of_network(name).elements)
        for guest in self._present():
            found.update(elements.of_guest(guest), self._of_publications(guest))
            found.update(self._of_links(self._view.links_from(guest.vm_id)))
        numbers = {guest.policy_number for guest in self._present()}
        return Contents(
            frozenset(found),
            frozenset(_chains(self._view.policies, self._with_rules(numbers))),
        )

    def _present(self) -> Iterator[Guest]:
        for vm_id in self._view.ports:
            guest = self._guest(vm_id)
            if guest is not None:
                yield guest

    def _guest(self, vm_id: str) -> Guest | None:
        port = self._view.ports.get(vm_id)
        if port is None or port.network in self.absent:
            return None
        return self._view.guests[vm_id]

    def _with_rules(self, numbers: Collection[int]) -> dict[int, Policy]:
        live = self._view.policies
        return {
            number: live[number]
            for number in numbers
            if number in live and live[number].mode is Mode.RULES
        }

    def _ways(self, guest: Guest) -> Iterator[Element]:
        yield from self._of_links(self._view.links_with(guest.vm_id))
        yield from self._of_publications(guest)

    def _of_links(self, links: Iterable[Link]) -> Iterator[Element]:
        for link in links:
            source, target = self._guest(link.from_vm_id), self._guest(link.to_vm_id)
            if source is not None and target is not None:
                yield from elements.of_link(link, source, target)

    def _of_publications(self, guest: Guest) -> Iterator[Element]:
        for publication in self._view.publications_of(guest.vm_id):
            yield from elements.of_publication(publication, guest)


def _chains(policies: Mapping[int, Policy], numbers: Iterable[int]) -> tuple[PolicyChain, ...]:
    return tuple(policy.chain(number, policies[number]) for number in sorted(numbers))
