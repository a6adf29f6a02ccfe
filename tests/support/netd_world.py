"""netd over a fake kernel, and whether the two agree."""

from dataclasses import replace
from ipaddress import IPv6Network, ip_address

from fake_kernel import Killed

from nexus_netd.feed import Feed
from nexus_netd.kernel import Tap
from nexus_netd.model import NetworkSpec
from nexus_netd.netd import Netd
from nexus_netd.operations.network_repair import bridge_of
from nexus_netd.operations.ports import Asked
from nexus_netd.operations.state import State
from nexus_netd.records.store import Store
from nexus_netd.rules.policy import OPEN
from nexus_netd.subnet import Subnet
from nexus_rpc.ids import new_vm_id

BRIDGE = "nexbr0"
ULA = IPv6Network("fd6e:6578:7573::/64")


class MortalDatabase:
    """A database that hears nothing from a process that was killed."""

    def __init__(self, database, kernel):
        self._database = database
        self._kernel = kernel

    async def read(self, work):
        return await self._reach(self._database.read, work)

    async def write(self, work):
        if not self._kernel.dead:
            self._kernel._call("commit")
        return await self._reach(self._database.write, work)

    async def _reach(self, method, work):
        if self._kernel.dead:
            raise Killed
        return await method(work)


def default(*, subnet="172.16.0.0/12", **changes):
    """Return the network "default" as settings say it."""
    spec = NetworkSpec("default", BRIDGE, Subnet.parse(subnet), dns=("8.8.8.8",))
    return replace(spec, **changes)


def other(name="blue", subnet="10.1.0.0/24", **changes):
    """Return another network."""
    return NetworkSpec(name, f"br-{name}", Subnet.parse(subnet), dns=("8.8.8.8",), **changes)


async def over(kernel, database, spec):
    """Return netd on a store and a kernel; it has not looked at the kernel yet."""
    store = await Store.open(database, spec)
    return Netd(State(kernel, store, Feed()))


async def attach(netd, vm_id=None, **asked):
    """Attach a port; return its guest."""
    return await netd.attach(Asked(vm_id or new_vm_id(), **asked))


def check_agreement(netd, kernel):
    """Compare what is in the fake kernel with what must be there. AssertionError."""
    state, view = netd.state, netd.state.view
    fit = {name: spec for name, spec in view.networks.items() if name not in state.problems}
    guests = {
        guest.tap: guest for vm_id, guest in view.guests.items() if view.ports[vm_id].network in fit
    }
    for tap in kernel.present.values():
        found = kernel._with_routes(tap)
        assert found == Tap.of(guests[tap.name]), found
    assert kernel.present.keys() == guests.keys() == kernel.kept
    assert kernel.routed == {
        address: (guest.bridge, guest.mac)
        for guest in guests.values()
        for address in guest.addresses
    }
    wanted = {
        name: bridge_of(spec, name) for spec in fit.values() for name in view.bridges_of(spec.name)
    }
    assert {name: link for name, link in kernel.links.items() if link.network} == wanted
    assert kernel.unreachable == {
        subnet for spec in fit.values() for subnet in (spec.subnet.network, spec.ipv6) if subnet
    }
    assert kernel.rules == state.wants.everything()
    chains = {chain.element.key for chain in kernel.chains}
    for one in kernel.elements.values():
        if one.set in {"policy4", "policy6"} and int.from_bytes(one.data[:4], "little") > OPEN + 1:
            assert one.data[:4] in chains, "a guest's policy has no chain"
    for one in kernel.pinned.values():
        length = 4 if one.set == "pins4" else 16
        vm_id = view.at_address(ip_address(one.key[:length]))
        assert vm_id is not None, "a pin of nobody's"
        address = ip_address(one.key[length : 2 * length])
        slot = int.from_bytes(one.key[2 * length :], "little")
        assert (address, slot) in state.pins.live(vm_id)
    assert len(view.macs) == len(view.ports)


def stored(netd):
    """Return what netd has, to be compared with what it has after a restart."""
    view = netd.state.view
    return (
        dict(view.networks),
        dict(view.ports),
        {vm_id: replace(guest, policy_number=0) for vm_id, guest in view.guests.items()},
        {vm_id: set(view.links_from(vm_id)) for vm_id in view.ports},
        {vm_id: set(view.publications_of(vm_id)) for vm_id in view.ports},
    )
