import asyncio
import tempfile
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)
from netd_world import default

from nexus_netd.model import Port
from nexus_netd.records.schema import MIGRATIONS
from nexus_netd.records.store import Store
from nexus_netd.subnet import Subnet
from nexus_rpc.database import Database
from nexus_rpc.errors import ResourceExhausted
from nexus_rpc.ids import new_vm_id


def lease(place, tap, vm_id=None):
    return Port(
        place.number,
        vm_id or new_vm_id(),
        "default",
        place.host,
        place.bridge,
        tap,
        place.mac,
        1_000.0,
    )


class Allocator(RuleBasedStateMachine):
    """Against a model: what is held, and the order in which the rest comes round."""

    vms = Bundle("vms")
    SPEC = default(subnet="10.9.8.0/28")

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.database = self.run(Database.open(Path(self.directory.name) / "netd.db", MIGRATIONS))
        self.store = self.run(Store.open(self.database, self.SPEC))
        self.held = {}
        self.fresh = list(range(2, 15))
        self.freed = []
        self.taps = 0

    def run(self, work):
        return self.runner.run(work)

    async def take(self, host=None):
        place = await self.store.leases.place(self.SPEC, host)
        self.taps += 1
        port = lease(place, f"nexus{self.taps}")
        await self.store.commit(self.store.leases.add(port, place.after))
        return port

    @rule(target=vms)
    def attach(self):
        waiting = self.fresh or self.freed
        if not waiting:
            with pytest.raises(ResourceExhausted, match="13 addresses"):
                self.run(self.take())
            return new_vm_id()
        port = self.run(self.take())
        assert port.host == waiting.pop(0)
        self.held[port.vm_id] = port
        return port.vm_id

    @rule(target=vms, host=st.integers(2, 14))
    def attach_at(self, host):
        if host not in self.fresh + self.freed:
            return new_vm_id()
        port = self.run(self.take(host))
        assert port.host == host
        self.held[port.vm_id] = port
        self.freed = [one for one in self.freed if one != host]
        self.fresh = [one for one in self.fresh if one != host]
        return port.vm_id

    @rule(vm=consumes(vms))
    def detach(self, vm):
        port = self.held.pop(vm, None)
        if port is not None:
            self.run(self.store.commit(self.store.leases.remove(port)))
            self._free(port)

    @rule()
    def clear(self):
        self.run(self.store.commit(self.store.leases.clear()))
        for port in self.held.values():
            self._free(port)
        self.held.clear()

    @rule()
    def restart(self):
        self.store = self.run(Store.open(self.database, self.SPEC))

    def _free(self, port):
        # One beyond those that came in turn is as if nobody had had it.
        after = self.run(self.store.leases.released("default"))[0]
        if port.host < after:
            self.freed.append(port.host)
        else:
            self.fresh = sorted([*self.fresh, port.host])

    @invariant()
    def store_is_as_the_model(self):
        if hasattr(self, "store"):
            assert dict(self.store.view.ports) == self.held
            assert len({port.mac for port in self.held.values()}) == len(self.held)

    def teardown(self):
        if hasattr(self, "database"):
            self.run(self.database.close())
            self.runner.close()
            self.directory.cleanup()


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("prefix", [8, 12, 24, 30])
async def test_any_prefix_gives_addresses_at_once(database, prefix):
    spec = default(subnet=f"10.0.0.0/{prefix}")
    store = await Store.open(database, spec)
    place = await store.leases.place(spec)
    assert (place.host, place.mac) == (2, "02:fc:0a:00:00:02")


async def test_a_slash_30_holds_one_guest(database):
    spec = default(subnet="10.0.0.0/30")
    store = await Store.open(database, spec)
    place = await store.leases.place(spec)
    port = lease(place, "nexus0")
    await store.commit(store.leases.add(port, place.after))
    with pytest.raises(ResourceExhausted) as caught:
        await store.leases.place(spec)
    assert caught.value.reason == "SUBNET_FULL"
    await store.commit(store.leases.remove(port))
    assert (await store.leases.place(spec)).host == 2


async def test_addresses_that_were_asked_for_are_passed_over(database):
    spec = default(subnet="10.0.0.0/24")
    store = await Store.open(database, spec)
    for number, host in enumerate((3, 4, 5, 9)):
        place = await store.leases.place(spec, host)
        await store.commit(store.leases.add(lease(place, f"nexus{number}"), place.after))
    hosts = []
    for number in range(10, 15):
        place = await store.leases.place(spec)
        await store.commit(store.leases.add(lease(place, f"nexus{number}"), place.after))
        hosts.append(place.host)
    assert hosts == [2, 6, 7, 8, 10]


async def test_bridges_have_room_for_so_many(database, monkeypatch):
    monkeypatch.setattr("nexus_netd.records.leases.PORTS_OF_A_BRIDGE", 1)
    monkeypatch.setattr("nexus_netd.records.leases._MOST_BRIDGES", 2)
    spec = default()
    store = await Store.open(database, spec)
    for number in range(2):
        place = await store.leases.place(spec)
        await store.commit(store.leases.add(lease(place, f"nexus{number}"), place.after))
    with pytest.raises(ResourceExhausted, match="2 bridges hold 1 ports each"):
        await store.leases.place(spec)


async def test_a_mac_that_is_another_s_is_made_from_the_number(database):
    spec = default(subnet="10.0.0.0/24")
    store = await Store.open(database, spec)
    place = await store.leases.place(spec)
    await store.commit(store.leases.add(lease(place, "nexus0"), place.after))
    moved = default(subnet="10.5.0.0/24")
    await store.commit(
        store.networks.put(moved), store.leases.rehost(list(store.view.ports.values()))
    )
    other = default(subnet="10.0.0.0/24")
    assert Subnet.parse("10.0.0.0/24").interface(2).ip == IPv4Address("10.0.0.2")
    await store.commit(store.networks.put(other), store.networks.recount("default", 2, ()))
    assert (await store.leases.place(other)).mac == "02:fd:00:00:00:02"
