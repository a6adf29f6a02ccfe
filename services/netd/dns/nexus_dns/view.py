"""What netd has said: networks, guests and their names."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nexus_dns.limits import Share
from nexus_dns.names import Allowed

if TYPE_CHECKING:
    from nexus_rpc.addresses import Address, Network


@dataclass(frozen=True)
class Served:
    """A network: addresses to listen on, and servers to ask."""

    name: str
    listen: frozenset[Address]
    upstream: tuple[str, ...]


@dataclass(frozen=True)
class Guest:
    """A guest: where its queries come from, and what it is answered.

    `any_name` guests are answered every name, others those in `names`. Those are pinned in either
    case: a rule for one name may allow more than a rule for all. `linked` are the ids of VMs whose
    names it may resolve. `private_ok` are networks that are not public and that answers may name.
    `upstream` empty: its network's. `share` is what it uses of the resolver; it stays the same
    while the guest is served.
    """

    vm_id: str
    addresses: frozenset[Address]
    network: str
    name: str = ""
    upstream: tuple[str, ...] = ()
    any_name: bool = False
    names: Allowed = field(default_factory=Allowed)
    linked: frozenset[str] = frozenset()
    private_ok: tuple[Network, ...] = ()
    share: Share = field(default_factory=Share)


class View:
    """The networks and guests that are served, found by id, name and address.

    `networks_changed` is set with each change of a network.
    """

    def __init__(self) -> None:
        self.networks_changed = asyncio.Event()
        self._networks: dict[str, Served] = {}
        self._guests: dict[str, Guest] = {}
        self._by_address: dict[Address, str] = {}
        self._by_name: dict[bytes, str] = {}

    def put_network(self, network: Served) -> None:
        """Serve a network, or change it."""
        self._networks[network.name] = network
        self.networks_changed.set()

    def remove_network(self, name: str) -> None:
        """Serve a network no more."""
        if self._networks.pop(name, None):
            self.networks_changed.set()

    def put_guest(self, guest: Guest) -> None:
        """Serve a guest, or change it. Of two with one address or name, the later has it."""
        before = self._guests.get(guest.vm_id)
        if before:
            guest = replace(guest, share=before.share)
            self.remove_guest(guest.vm_id)
        self._guests[guest.vm_id] = guest
        self._by_address |= dict.fromkeys(guest.addresses, guest.vm_id)
        if guest.name:
            self._by_name[_label(guest.name)] = guest.vm_id

    def remove_guest(self, vm_id: str) -> None:
        """Serve a guest no more."""
        guest = self._guests.pop(vm_id, None)
        if guest is None:
            return
        for address in guest.addresses:
            if self._by_address.get(address) == vm_id:
                del self._by_address[address]
        if self._by_name.get(_label(guest.name)) == vm_id:
            del self._by_name[_label(guest.name)]

    def keep(self, networks: set[str], guests: set[str]) -> None:
        """Forget all networks and guests but these."""
        for name in self._networks.keys() - networks:
            self.remove_network(name)
        for vm_id in self._guests.keys() - guests:
            self.remove_guest(vm_id)

    def listen(self) -> set[Address]:
        """Return the addresses to listen on."""
        return {address for network in self._networks.values() for address in network.listen}

    def guest(self, vm_id: str) -> Guest | None:
        """Return a guest by its VM's id."""
        return self._guests.get(vm_id)

    def guest_at(self, address: Address) -> Guest | None:
        """Return the guest that has an address."""
        return self._guests.get(self._by_address.get(address, ""))

    def guest_named(self, label: bytes) -> Guest | None:
        """Return the guest whose VM has a name, given in lower case."""
        return self._guests.get(self._by_name.get(label, ""))

    def upstream(self, guest: Guest) -> tuple[str, ...]:
        """Return the servers to ask for a guest."""
        network = self._networks.get(guest.network)
        return guest.upstream or (network.upstream if network else ())


def _label(name: str) -> bytes:
    return name.lower().encode("ascii", "replace")
