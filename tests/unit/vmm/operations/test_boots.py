"""A boot that is lost before its guest is ready is done once more (ADR 0004)."""

import pytest
from vmm_guest import REPORTS
from vmm_life import check

from nexus_rpc.errors import FailedPrecondition
from nexus_vmm.operations import keeper
from nexus_vmm.states import Event, State
from nexus_vmm.vm import Exit

REBOOT = Exit("shutdown", "the guest rebooted")


def _end_itself(vmm, world, vm):
    world.end(vm.id, REBOOT)


async def _fall_silent(vmm, world, vm):
    await vmm.supervisor.report(vm.id, vm.boot, Event.LOST, "not a word")


@pytest.mark.parametrize("lose", [_end_itself, _fall_silent])
@pytest.mark.parametrize("state", [State.RUNNING, State.ONLINE, State.PROVISIONING])
async def test_a_boot_lost_before_the_guest_is_ready_is_done_once_more(host, state, lose):
    async def life(vmm):
        await vmm.create()
        first = await vmm.start()
        for event in REPORTS[state]:
            await vmm.supervisor.report("hello", first.boot, event, "")
        if (waiting := lose(vmm, host.world, first)) is not None:
            await waiting
        second = await vmm.until_boot_after(first)
        assert second.state is State.RUNNING
        assert "booted once more" in second.reason
        assert host.world.processes.keys() == {first.id}

        if (waiting := lose(vmm, host.world, second)) is not None:
            await waiting
        lost = State.UNREACHABLE if lose is _fall_silent else State.CRASHED
        await vmm.until(first.id, lost)

    await host.live(life)


@pytest.mark.parametrize("lose", [_end_itself, _fall_silent])
@pytest.mark.parametrize("back", [[Event.HELLO], [Event.HELLO, Event.PROVISIONING]])
async def test_a_guest_that_comes_back_from_being_lost_is_not_booted_again(host, lose, back):
    async def life(vmm):
        await vmm.create()
        vm = await vmm.start()
        for event in [*REPORTS[State.READY], Event.LOST, *back]:
            await vmm.supervisor.report("hello", vm.boot, event, "")
        if (waiting := lose(vmm, host.world, vm)) is not None:
            await waiting
        lost = State.UNREACHABLE if lose is _fall_silent else State.CRASHED
        assert (await vmm.until(vm.id, lost)).boot == vm.boot

    await host.live(life)


@pytest.mark.parametrize("lose", [_end_itself, _fall_silent])
async def test_a_vm_that_has_run_for_long_is_not_booted_again(host, lose, monkeypatch):
    monkeypatch.setattr(keeper, "_BOOT_SECONDS", 0.0)

    async def life(vmm):
        await vmm.create()
        vm = await vmm.start()
        if (waiting := lose(vmm, host.world, vm)) is not None:
            await waiting
        lost = State.UNREACHABLE if lose is _fall_silent else State.CRASHED
        assert (await vmm.until(vm.id, lost)).boot == vm.boot

    await host.live(life)


async def test_a_second_boot_is_the_last_though_vmm_restarts(host):
    async def first(vmm):
        await vmm.create()
        vm = await vmm.start()
        host.world.end(vm.id, REBOOT)
        return await vmm.until_boot_after(vm)

    vm = await host.live(first)

    async def second(vmm):
        host.world.end(vm.id, REBOOT)
        assert (await vmm.until(vm.id, State.CRASHED)).boot == vm.boot

    await host.live(second)


@pytest.mark.parametrize("event", [Event.LOST, None])
async def test_a_guest_that_was_ready_is_not_booted_again(host, event):
    async def life(vmm):
        await vmm.create()
        vm = await vmm.start()
        for event_ in REPORTS[State.READY]:
            await vmm.supervisor.report("hello", vm.boot, event_, "")
        if event:
            after = await vmm.supervisor.report("hello", vm.boot, event, "not a word")
            assert (after.state, after.boot) == (State.UNREACHABLE, vm.boot)
        else:
            host.world.end(vm.id, REBOOT)
            assert (await vmm.until(vm.id, State.CRASHED)).reason == REBOOT.reason

    await host.live(life)


async def test_where_the_second_boot_fails_too_the_vm_has_crashed(host):
    async def life(vmm):
        await vmm.create()
        vm = await vmm.start()
        host.world.fault = "no kernel"
        host.world.end(vm.id, REBOOT)
        crashed = await vmm.until(vm.id, State.CRASHED)
        assert REBOOT.reason in crashed.reason
        assert "no kernel" in crashed.reason
        async with vmm.work.lock(vm.id):  # what is left is cleared up under it
            check(vmm.hub.present(), host.world)

    await host.live(life)


async def test_what_a_guest_said_says_nothing_once_it_is_booted_again(host):
    async def life(vmm):
        await vmm.create()
        first = await vmm.start()
        for event in REPORTS[State.PROVISIONING]:
            await vmm.supervisor.report("hello", first.boot, event, "")
        async with vmm.work.lock(first.id):
            await vmm.store.boots_again(first.id)
            with pytest.raises(FailedPrecondition) as caught:
                await vmm.supervisor.report("hello", first.boot, Event.READY, "")
        assert caught.value.reason == "STALE_BOOT"

    await host.live(life)


async def test_a_guest_that_is_ready_after_all_is_not_booted_again(host):
    async def life(vmm):
        await vmm.create()
        vm = await vmm.start()
        for event in REPORTS[State.READY]:
            await vmm.supervisor.report("hello", vm.boot, event, "")
        assert await vmm.store.boots_again(vm.id) is None
        assert await vmm.store.find(vm.id) == vmm.hub.present()[0]

    await host.live(life)
