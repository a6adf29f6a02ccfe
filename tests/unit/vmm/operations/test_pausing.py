"""Paused VMs: what may happen to them, and pauses that are cut off anywhere."""

import pytest
from vmm_guest import REPORTS
from vmm_life import Chaos, Crash, Host, check, living, unavailable

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_vmm.states import Event, State
from nexus_vmm.vm import Condition, Delay, RestartPolicy


async def started(vmm, **spec):
    await vmm.create(**spec)
    return await vmm.start()


async def paused(vmm, **spec):
    await started(vmm, **spec)
    return await vmm.pause()


@pytest.mark.parametrize("state", REPORTS)
async def test_a_vm_is_paused_from_each_state_in_which_it_runs(host, state):
    async def life(vmm):
        vm = await started(vmm)
        for event in REPORTS[state]:
            await vmm.supervisor.report(vm.id, vm.boot, event, "")
        halted = await vmm.pause()
        assert (halted.state, halted.reason) == (State.PAUSED, "paused as asked")
        assert (halted.boot, halted.pid) == (vm.boot, vm.pid)
        check(vmm.hub.present(), host.world)
        running = await vmm.resume()
        assert (running.state, running.boot) == (State.RUNNING, vm.boot)
        check(vmm.hub.present(), host.world)

    await host.live(life)


@living
async def test_what_a_paused_vm_refuses(vmm, world):
    vm = await paused(vmm)
    for call in (vmm.pause, vmm.start, vmm.delete):
        with pytest.raises(FailedPrecondition, match="is paused"):
            await call()
    for event in (Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST):
        assert await vmm.supervisor.report(vm.id, vm.boot, event, "too late") == vm


@living
async def test_only_what_runs_is_paused_and_only_what_is_paused_resumed(vmm, world):
    await vmm.create()
    for call in (vmm.pause, vmm.resume):
        with pytest.raises(FailedPrecondition, match="is created"):
            await call()
    await vmm.start()
    with pytest.raises(FailedPrecondition, match="it is not paused"):
        await vmm.resume()


@living
async def test_a_repeat_of_pause_and_resume_does_nothing(vmm, world):
    await started(vmm)
    halted = await vmm.pause(request_id="pause")
    assert await vmm.pause(request_id="pause") == halted
    running = await vmm.resume(request_id="resume")
    assert await vmm.resume(request_id="resume") == running
    assert await vmm.pause(request_id="pause") == running


@pytest.mark.parametrize("grace", [0, 10])
async def test_a_paused_vm_is_stopped(host, grace):
    async def life(vmm):
        await paused(vmm)
        assert (await vmm.stop(grace=grace)).state is State.STOPPED
        check(vmm.hub.present(), host.world)
        await vmm.delete()

    await host.live(life)


async def test_the_guest_of_a_paused_vm_may_shut_down(host):
    async def life(vmm):
        vm = await paused(vmm)
        process = host.world.processes[vm.id]
        await vmm.stop()
        assert not process.paused

    await host.live(life)


async def test_a_paused_vm_that_is_killed_has_crashed_and_comes_back_running(host):
    async def life(vmm):
        vm = await paused(vmm, restart=RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE))
        host.world.end(vm.id)
        assert (await vmm.until_boot_after(vm)).state is State.RUNNING
        async with vmm.work.lock(vm.id):
            check(vmm.hub.present(), host.world)

    await host.live(life)


async def test_a_paused_vm_is_adopted_as_it_is(host):
    vm = await host.live(paused)

    async def second(vmm):
        assert vmm.hub.present() == [vm]
        check([vm], host.world)
        assert (await vmm.resume()).state is State.RUNNING

    await host.live(second)


@living
async def test_a_resumed_guest_that_falls_silent_is_not_booted_again(vmm, world):
    vm = await paused(vmm)
    await vmm.resume()
    lost = await vmm.supervisor.report(vm.id, vm.boot, Event.LOST, "not a word")
    assert (lost.state, lost.boot) == (State.UNREACHABLE, vm.boot)


async def test_a_refusal_of_firecracker_changes_nothing(host):
    async def life(vmm):
        await started(vmm)
        for call in (vmm.pause, vmm.resume):
            host.world.halts = "not now"
            with pytest.raises(FailedPrecondition, match="not now"):
                await call(request_id=call.__name__)
            host.world.halts = ""
            check(await vmm.store.all(), host.world)
            await call(request_id=call.__name__)

    await host.live(life)


async def _act(vmm, call):
    await getattr(vmm, call)(request_id="once")


@pytest.mark.parametrize("call", ["pause", "resume"])
async def test_a_kill_at_any_point_is_repaired(call):
    setup, reached = {"pause": (started, State.PAUSED), "resume": (paused, State.RUNNING)}[call]
    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        repair, during = Crash, 0
        while repair is Crash:
            during += 1
            async with Host.fresh() as host:
                await host.live(setup)
                outcome = await host.live(lambda vmm: _act(vmm, call), Chaos(at))

                async def settled(vmm, host=host):
                    check(vmm.hub.present(), host.world)

                repair = await host.live(settled, Chaos(during))

                async def again(vmm, host=host):
                    check(vmm.hub.present(), host.world)
                    await _act(vmm, call)
                    assert [vm.state for vm in vmm.hub.present()] == [reached]
                    check(vmm.hub.present(), host.world)

                await host.live(again)
    assert at > 3


@pytest.mark.parametrize("call", ["pause", "resume"])
async def test_an_error_at_any_point_is_recovered_from(call):
    setup, reached = {"pause": (started, State.PAUSED), "resume": (paused, State.RUNNING)}[call]
    chaos, at = Chaos(), 0
    while chaos.count >= at:
        at += 1
        chaos = Chaos(at, unavailable())
        async with Host.fresh() as host:
            await host.live(setup)

            async def once(vmm):
                try:
                    await _act(vmm, call)
                except Unavailable:
                    await _act(vmm, call)
                assert [vm.state for vm in vmm.hub.present()] == [reached]

            await host.live(once, chaos)
            await host.live(lambda vmm: _act(vmm, call))
    assert at > 3
