"""Changing the spec of a VM: which fields, when, and against which etag."""

import pytest
from vmm_life import crashed_of

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import FailedPrecondition, NotFound
from nexus_vmm.records.amend import FIELDS
from nexus_vmm.vm import Condition, Delay, RestartPolicy

NONE = RestartPolicy()
NOW = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)
LATER = RestartPolicy(Condition.ALWAYS, Delay.FIXED, 3600)


async def started(vmm, policy=NONE):
    await vmm.create(restart=policy)
    return await vmm.start()


def test_each_field_of_a_spec_is_in_the_table():
    assert list(FIELDS) == [field.name for field in vmm_pb2.VmSpec.DESCRIPTOR.fields]


async def test_update_changes_the_policy_of_a_live_vm(host):
    async def life(vmm):
        vm = await started(vmm)
        updated = await vmm.update(restart=NOW)
        assert (updated.spec.restart, updated.revision, updated.state) == (NOW, 2, vm.state)
        assert vmm.hub.present() == [updated]
        assert await vmm.update(restart=NOW) == updated
        host.world.end(vm.id)
        await vmm.until_boot_after(vm)

    await host.live(life)


async def test_update_to_never_cancels_what_is_pending(host):
    async def life(vmm):
        vm = await crashed_of(vmm, host.world, LATER)
        for policy, due in ((NOW, vm.restarts.due), (RestartPolicy(), 0)):
            assert (await vmm.update(restart=policy)).restarts.due == due
        assert not vmm.supervisor.keeper._timers._handles
        await vmm.supervisor.keeper._restart(vm.id, vm.restarts.due)
        assert not host.world.processes

    await host.live(life)


async def test_update_of_what_a_process_holds_waits_for_its_end(host):
    async def life(vmm):
        await started(vmm, NOW)
        fields = ("memory_mib", "vcpu_count", "balloon")
        wanted = {"memory_mib": 256, "vcpu_count": 2, "balloon": True}
        for field in fields:
            with pytest.raises(FailedPrecondition, match=f"{field} changes only") as caught:
                await vmm.update([field], **wanted)
            assert caught.value.reason == "VM_STATE"
        assert (await vmm.update(fields)).revision == 1  # what is so already is no change
        await vmm.stop()
        vm = await vmm.update(fields, **wanted)
        assert (vm.spec.memory_mib, vm.spec.vcpu_count, vm.spec.balloon) == (256, 2, True)
        assert vm.spec.restart == NOW

    await host.live(life)


@pytest.mark.parametrize("change", [{"image": "other"}, {"kernel": "other"}], ids=str)
async def test_update_refuses_what_never_changes(host, change):
    async def life(vmm):
        vm = await vmm.create()
        with pytest.raises(FailedPrecondition, match="cannot change") as caught:
            await vmm.update([*change, "restart"], restart=NOW, **change)
        assert caught.value.reason == "FIELD_FIXED"
        assert await vmm.store.find(vm.id) == vm

    await host.live(life)


async def test_a_disk_grows_with_the_next_start(host):
    async def life(vmm):
        vm = await vmm.create()
        await vmm.start()
        with pytest.raises(FailedPrecondition, match="disk_mib changes only") as caught:
            await vmm.update(["disk_mib"], disk_mib=64)
        assert caught.value.reason == "VM_STATE"
        await vmm.stop()
        for _ in range(2):
            grown = await vmm.update(["disk_mib"], disk_mib=64, request_id="once")
            assert (grown.spec.disk_mib, grown.revision) == (64, 2)
        assert host.world.disks == {vm.id: 16}
        await vmm.start()
        assert host.world.disks == {vm.id: 64}

    await host.live(life)


@pytest.mark.parametrize("live", [False, True])
async def test_a_disk_never_shrinks(host, live):
    async def life(vmm):
        vm = await vmm.create(disk_mib=64)
        if live:
            vm = await vmm.start()
        with pytest.raises(FailedPrecondition, match="is 64 and cannot become 63") as caught:
            await vmm.update(["disk_mib", "restart"], disk_mib=63, restart=NOW)
        assert caught.value.reason == "FIELD_FIXED"
        assert await vmm.store.find(vm.id) == vm

    await host.live(life)


async def test_update_with_an_old_etag_changes_nothing(host):
    async def life(vmm):
        await vmm.create()
        await vmm.update(restart=NOW, etag="1-1", request_id="once")
        with pytest.raises(FailedPrecondition, match="is 1-2, not 1-1") as caught:
            await vmm.update(restart=LATER, etag="1-1")
        assert (caught.value.reason, caught.value.metadata["etag"]) == ("ETAG_MISMATCH", "1-2")
        repeated = await vmm.update(restart=NOW, etag="1-1", request_id="once")
        assert (repeated.spec.restart, repeated.revision) == (NOW, 2)
        with pytest.raises(NotFound):
            await vmm.update(vm="nobody")

    await host.live(life)
