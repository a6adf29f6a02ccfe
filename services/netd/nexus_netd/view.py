"""What netd has, in memory: looked up by VM, by TAP and by address, whatever the number of ports.

`Store` keeps it as the database is; operations, feeders, metrics and explanations read it. All of
one event loop.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from nexus_netd.model import Address, Guest, Link, NetworkSpec, Policy, Port, Publication

_K = TypeVar("_K")
_V = TypeVar("_V")
_D = TypeVar("_D")


class View:
    """Networks by name, ports, guests, links and publications by VM."""

    def __init__(self) -> None:
        self._networks: dict[str, NetworkSpec] = {}
        self._ports: dict[str, Port] = {}
        self._guests: dict[str, Guest] = {}
        self._links: dict[str, dict[Link, None]] = {}
        self._links_to: dict[str, dict[Link, None]] = {}
        self._publications: dict[str, dict[Publication, None]] = {}
        self._published: dict[tuple[int, int], dict[Address, Publication]] = {}
        self._taps: dict[str, str] = {}
        self._addresses: dict[Address, str] = {}
        self._policies: dict[int, Policy] = {}
        self._users = Counter[int]()
        self._bridges: dict[str, Counter[str]] = {}
        self._macs: set[str] = set()

    @property
    def networks(self) -> Mapping[str, NetworkSpec]:
        """Networks by name."""
        return self._networks

    @property
    def ports(self) -> Mapping[str, Port]:
        """Ports by VM."""
        return self._ports

    @property
    def guests(self) -> Mapping[str, Guest]:
        """Ports with everything resolved, by VM."""
        return self._guests

    @property
    def policies(self) -> Mapping[int, Policy]:
        """The policies that hold for some guest, by number."""
        return self._policies

    @property
    def macs(self) -> Collection[str]:
        """The MACs of all guests."""
        return self._macs

    def bridges_of(self, network: str) -> Mapping[str, int]:
        """Return the network's bridges, with the number of ports on each.

        A bridge that was needed once stays, until the service starts anew: the next port would
        only make it again.
        """
        return self._bridges.get(network, {})

    def port_count(self, network: str) -> int:
        """Return how many ports the network has."""
        return sum(self.bridges_of(network).values())

    def users(self, policy_number: int) -> int:
        """Return how many guests have the policy."""
        return self._users[policy_number]

    def links_from(self, vm_id: str) -> Collection[Link]:
        """Return the links by which the VM may open connections."""
        return self._links.get(vm_id, ())

    def links_to(self, vm_id: str) -> Collection[Link]:
        """Return the links by which others may open connections to the VM."""
        return self._links_to.get(vm_id, ())

    def links_with(self, vm_id: str) -> Collection[Link]:
        """Return the links from and to the VM."""
        return [*self.links_from(vm_id), *self.links_to(vm_id)]

    def publications_of(self, vm_id: str) -> Collection[Publication]:
        """Return what is forwarded to the VM."""
        return self._publications.get(vm_id, ())

    def published(self, protocol: int, host_port: int) -> Mapping[Address, Publication]:
        """Return what is forwarded from that port of the host, by the host's address."""
        return self._published.get((protocol, host_port), {})

    def at_tap(self, name: str) -> str | None:
        """Return the VM behind the TAP."""
        return self._taps.get(name)

    def at_address(self, address: Address) -> str | None:
        """Return the VM that has the address."""
        return self._addresses.get(address)

    def put_network(self, spec: NetworkSpec) -> None:
        """Take in a network, new or changed."""
        before = self._networks.get(spec.name)
        self._networks[spec.name] = spec
        if before is None or before.bridge != spec.bridge:
            self._bridges[spec.name] = Counter({spec.bridge: 0})

    def remove_network(self, name: str) -> None:
        """Forget a network."""
        self._networks.pop(name, None)
        self._bridges.pop(name, None)

    def add_bridge(self, network: str, name: str) -> None:
        """Take in a network's next bridge."""
        self._bridges[network].setdefault(name, 0)

    def drop_bridge(self, network: str, name: str) -> None:
        """Forget a bridge that has no ports."""
        self._bridges[network].pop(name, None)

    def put_port(self, port: Port, guest: Guest) -> None:
        """Take in a port, new or changed."""
        self._unindex(port.vm_id)
        self._ports[port.vm_id], self._guests[port.vm_id] = port, guest
        self._taps[guest.tap] = port.vm_id
        self._addresses.update(dict.fromkeys(guest.addresses, port.vm_id))
        self._macs.add(guest.mac)
        self._policies[guest.policy_number] = guest.policy
        self._users[guest.policy_number] += 1
        self._bridges.setdefault(port.network, Counter())[guest.bridge] += 1

    def remove_port(self, vm_id: str) -> None:
        """Forget a port; its links and publications are removed by themselves."""
        self._unindex(vm_id)
        self._ports.pop(vm_id, None)
        self._guests.pop(vm_id, None)

    def put_link(self, link: Link) -> None:
        """Take in a link."""
        self._links.setdefault(link.from_vm_id, {})[link] = None
        self._links_to.setdefault(link.to_vm_id, {})[link] = None

    def remove_link(self, link: Link) -> None:
        """Forget a link."""
        _discard(self._links, link.from_vm_id, link)
        _discard(self._links_to, link.to_vm_id, link)

    def put_publication(self, publication: Publication) -> None:
        """Take in a publication."""
        place = (publication.protocol, publication.host_port)
        self._publications.setdefault(publication.vm_id, {})[publication] = None
        self._published.setdefault(place, {})[publication.host_ip] = publication

    def remove_publication(self, publication: Publication) -> None:
        """Forget a publication."""
        _discard(self._publications, publication.vm_id, publication)
        _discard(
            self._published, (publication.protocol, publication.host_port), publication.host_ip
        )

    def _unindex(self, vm_id: str) -> None:
        """Take the VM's TAP and addresses out, unless they are another's by now: a swap."""
        guest = self._guests.get(vm_id)
        if guest is None:
            return
        if self._taps.get(guest.tap) == vm_id:
            del self._taps[guest.tap]
        for address in guest.addresses:
            if self._addresses.get(address) == vm_id:
                del self._addresses[address]
        self._macs.discard(guest.mac)
        counts = self._bridges.get(self._ports[vm_id].network)
        if counts is not None and guest.bridge in counts:
            counts[guest.bridge] -= 1
        self._users[guest.policy_number] -= 1
        if not self._users[guest.policy_number]:
            del self._users[guest.policy_number]
            del self._policies[guest.policy_number]


def _discard(table: dict[_K, dict[_V, _D]], key: _K, value: _V) -> None:
    inner = table.get(key, {})
    inner.pop(value, None)
    if not inner:
        table.pop(key, None)
