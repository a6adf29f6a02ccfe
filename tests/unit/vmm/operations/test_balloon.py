import pytest

from nexus_rpc.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable


async def started(vmm, **spec):
    await vmm.create(**spec)
    return await vmm.start()


async def test_the_balloon_of_a_live_vm_is_set(host):
    async def life(vmm):
        vm = await started(vmm, balloon=True)
        for amount in (64, 64, 127, 0):
            assert await vmm.balloons.set("hello", amount) == vm
            assert host.world.processes[vm.id].balloon == amount
        with pytest.raises(InvalidArgument, match="less than the VM's memory, 128") as caught:
            await vmm.balloons.set("hello", 128)
        assert caught.value.metadata == {"field": "amount_mib"}
        await vmm.pause()
        await vmm.balloons.set("hello", 1)
        await vmm.stop(grace=0)
        with pytest.raises(FailedPrecondition, match="is stopped: only a live VM") as caught:
            await vmm.balloons.set("hello", 1)
        assert caught.value.reason == "VM_STATE"

    await host.live(life)


async def test_a_vm_without_a_balloon_is_told_how_to_get_one(host):
    async def life(vmm):
        await started(vmm)
        with pytest.raises(FailedPrecondition, match="UpdateVm") as caught:
            await vmm.balloons.set("hello", 1)
        assert caught.value.reason == "NO_BALLOON"
        with pytest.raises(NotFound):
            await vmm.balloons.set("other", 1)

    await host.live(life)


async def test_a_machine_that_is_gone_does_not_answer(host):
    async def life(vmm):
        vm = await started(vmm, balloon=True)
        process = host.world.processes.pop(vm.id)
        with pytest.raises(Unavailable):
            await vmm.balloons.set("hello", 1)
        host.world.processes[vm.id] = process

    await host.live(life)
