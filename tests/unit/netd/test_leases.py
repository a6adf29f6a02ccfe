import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from nexus_netd.leases import MIGRATIONS, Leases, TapTaken
from nexus_netd.subnet import Subnet
from nexus_rpc.database import Database
from nexus_rpc.errors import ResourceExhausted
from nexus_rpc.ids import new_vm_id
from nexus_rpc.settings import SettingsError


class Allocator(RuleBasedStateMachine):
    """Against a model: what is held, and the order in which the rest comes round."""

    vms = Bundle("vms")

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.database = self.run(Database.open(Path(self.directory.name) / "netd.db", MIGRATIONS))
        self.subnet = Subnet.parse("10.9.8.0/28")
        self.leases = self.run(Leases.open(self.database, self.subnet))
        self.held = {}
        self.waiting = list(range(2, 15))

    def run(self, work):
        return self.runner.run(work)

    async def take(self):
        vm = new_vm_id()
        return vm, await self.leases.add(vm, await self.leases.next_host(), f"tap-{vm}")

    @rule(target=vms)
    def attach(self):
        if not self.waiting:
            with pytest.raises(ResourceExhausted, match="13 addresses"):
                self.run(self.take())
            return new_vm_id()
        vm, lease = self.run(self.take())
        assert lease.host == self.waiting.pop(0)
        self.held[vm] = lease
        return vm

    @rule(vm=consumes(vms))
    def detach(self, vm):
        self.run(self.leases.remove(vm))
        if vm in self.held:
            self.waiting.append(self.held.pop(vm).host)

    @rule()
    def clear(self):
        assert self.run(self.leases.clear()) == len(self.held)
        self.waiting += [lease.host for lease in self.held.values()]
        self.held.clear()

    @rule()
    def restart(self):
        self.leases = self.run(Leases.open(self.database, self.subnet))

    @invariant()
    def store_is_as_the_model(self):
        if hasattr(self, "leases"):
            expected = sorted(self.held.values(), key=lambda lease: lease.host)
            assert self.run(self.leases.all()) == expected

    def teardown(self):
        if hasattr(self, "database"):
            self.run(self.database.close())
            self.runner.close()
            self.directory.cleanup()


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("prefix", [8, 12, 24, 30])
async def test_any_prefix_gives_addresses_at_once(database, prefix):
    subnet = Subnet.parse(f"10.0.0.0/{prefix}")
    leases = await Leases.open(database, subnet)
    lease = await leases.add(new_vm_id(), await leases.next_host(), "nexus0")
    assert str(subnet.interface(lease.host)) == f"10.0.0.2/{prefix}"


async def test_a_slash_30_holds_one_guest(database):
    leases = await Leases.open(database, Subnet.parse("10.0.0.0/30"))
    vm = new_vm_id()
    await leases.add(vm, await leases.next_host(), "nexus0")
    with pytest.raises(ResourceExhausted) as caught:
        await leases.next_host()
    assert caught.value.reason == "SUBNET_FULL"
    await leases.remove(vm)
    assert await leases.next_host() == 2


async def test_a_tap_belongs_to_one_lease(database):
    leases = await Leases.open(database, Subnet.parse("10.0.0.0/24"))
    first, second = new_vm_id(), new_vm_id()
    await leases.add(first, 2, "nexus0")
    with pytest.raises(TapTaken):
        await leases.add(second, 3, "nexus0")
    await leases.add(second, 3, "nexus1")
    with pytest.raises(TapTaken):
        await leases.rename(second, "nexus0")
    assert (await leases.get(second)).tap == "nexus1"


async def test_another_subnet_is_refused_while_ports_have_addresses(database):
    leases = await Leases.open(database, Subnet.parse("10.0.0.0/24"))
    vm = new_vm_id()
    await leases.add(vm, await leases.next_host(), "nexus0")
    with pytest.raises(SettingsError, match=r"1 ports have addresses of 10\.0\.0\.0/24"):
        await Leases.open(database, Subnet.parse("10.0.0.0/16"))
    await leases.remove(vm)
    moved = await Leases.open(database, Subnet.parse("10.1.0.0/16"))
    assert await moved.next_host() == 2
