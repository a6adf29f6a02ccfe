"""The operations: what they do, and what they refuse before they touch anything."""

import asyncio

import pytest
from vmm_guest import REPORTS
from vmm_life import check, living

from nexus_rpc.errors import DeadlineExceeded, FailedPrecondition, NotFound
from nexus_vmm.states import State
from nexus_vmm.vm import Exit


@living
async def test_the_life_of_a_vm(vmm, world):
    created = await vmm.create()
    assert (created.state, created.cid, created.boot, created.pid) == (State.CREATED, 3, "", 0)
    running = await vmm.start()
    assert running.state is State.RUNNING
    assert (running.boot, running.pid) == (
        world.processes[created.id].boot,
        world.processes[created.id].pid,
    )
    stopped = await vmm.stop()
    assert (stopped.state, stopped.boot) == (State.STOPPED, running.boot)
    again = await vmm.start(created.id)
    assert again.boot != running.boot
    await vmm.stop(grace=0)
    await vmm.delete()
    assert vmm.hub.present() == []


@living
async def test_history_is_told_in_order(vmm, world):
    vm = await vmm.create()
    await vmm.start()
    await vmm.stop()
    steps = [(step.old, step.new) for step in await vmm.store.history(vm)]
    assert steps == [(State.CREATED, State.RUNNING), (State.RUNNING, State.STOPPED)]


@living
async def test_history_keeps_the_last_twenty(vmm, world):
    vm = await vmm.create()
    for _ in range(15):
        await vmm.start()
        last = await vmm.stop()
    history = await vmm.store.history(vm)
    assert len(history) == 20
    assert history[-1].time == last.changed


@living
async def test_each_vm_has_its_own_cid(vmm, world):
    cids = [(await vmm.create(name)).cid for name in ("a", "b", "c")]
    assert cids == [3, 4, 5]


@living
async def test_start_of_a_live_vm_touches_nothing(vmm, world):
    vm = await vmm.create()
    await vmm.start()
    process = world.processes[vm.id]
    with pytest.raises(FailedPrecondition, match="is running: no start") as caught:
        await vmm.start()
    assert caught.value.reason == "VM_STATE"
    assert world.processes[vm.id] is process


@living
async def test_delete_of_a_live_vm_touches_nothing(vmm, world):
    await vmm.create()
    await vmm.start()
    with pytest.raises(FailedPrecondition, match="stop it first"):
        await vmm.delete()


@living
async def test_stop_of_what_does_not_run_is_refused(vmm, world):
    await vmm.create()
    with pytest.raises(FailedPrecondition, match="is created: no stop"):
        await vmm.stop()


@living
async def test_unknown_vms_are_not_found(vmm, world):
    for call in (vmm.start, vmm.stop, vmm.delete):
        for request_id in ("", "once"):
            with pytest.raises(NotFound, match="no VM 'nobody'") as caught:
                await call("nobody", request_id)
            assert caught.value.reason == "VM_NOT_FOUND"


@living
async def test_a_failed_start_can_be_tried_again(vmm, world):
    vm = await vmm.create()
    world.fault = "Invalid Elf magic number"
    with pytest.raises(FailedPrecondition, match="Invalid Elf magic number"):
        await vmm.start(request_id="once")
    failed = await vmm.store.find(vm.id)
    assert (failed.state, failed.reason) == (State.FAILED, "Invalid Elf magic number")
    check([failed], world)
    world.fault = ""
    assert (await vmm.start(request_id="once")).state is State.RUNNING


@living
async def test_a_lost_image_fails_the_start(vmm, world):
    vm = await vmm.create()
    world.images.clear()
    with pytest.raises(NotFound, match="no image 'debian'"):
        await vmm.start()
    assert (await vmm.store.find(vm.id)).state is State.FAILED
    with pytest.raises(NotFound):
        await vmm.create("other")


@living
async def test_the_deadline_bounds_a_start(vmm, world):
    vm = await vmm.create()
    with pytest.raises(DeadlineExceeded, match="did not boot within"):
        await vmm.start(budget=1e-9)
    assert (await vmm.store.find(vm.id)).state is State.FAILED


@living
async def test_a_caller_that_hangs_up_does_not_stop_a_start(vmm, world):
    vm = await vmm.create()
    calling = asyncio.create_task(vmm.start(request_id="once"))
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait({calling})
    await vmm.until(vm.id, State.RUNNING)
    assert (await vmm.start(request_id="once")).state is State.RUNNING


@living
async def test_an_end_of_its_own_is_a_crash(vmm, world):
    vm = await vmm.create()
    running = await vmm.start()
    world.end(vm.id, Exit("error", "exit code 5"))
    crashed = await vmm.until(vm.id, State.CRASHED)
    assert (crashed.reason, crashed.pid, crashed.boot) == ("exit code 5", 0, running.boot)
    async with vmm.work.lock(vm.id):
        pass  # it clears up before it lets go
    assert (await vmm.start()).state is State.RUNNING


@living
async def test_a_stop_that_is_asked_for_is_no_crash(vmm, world):
    vm = await vmm.create()
    await vmm.start()
    watch = vmm.hub.watch()
    await asyncio.gather(vmm.stop(), anext(watch))
    await vmm.start()
    await vmm.stop(grace=0)
    states = {step.new for step in await vmm.store.history(vm)}
    assert states == {State.RUNNING, State.STOPPED}
    await watch.aclose()


@living
async def test_a_process_that_ends_at_once_is_seen(vmm, world):
    vm = await vmm.create()
    async with vmm.work.lock(vm.id):
        starting = asyncio.create_task(vmm.start())
    await vmm.until(vm.id, State.RUNNING)
    world.end(vm.id)
    await starting
    await vmm.until(vm.id, State.CRASHED)
    async with vmm.work.lock(vm.id):
        pass


@living
async def test_operations_on_one_vm_come_one_after_the_other(vmm, world):
    await vmm.create()
    results = await asyncio.gather(
        *(vmm.start() for _ in range(4)), *(vmm.stop() for _ in range(4)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, FailedPrecondition)]
    assert len(refused) == 6


async def _waited_for(lock):
    async with asyncio.timeout(5):
        while not lock._waiters:  # noqa: ASYNC110  # a lock tells nobody of its waiters
            await asyncio.sleep(0)


@living
async def test_an_operation_holds_the_lock_of_the_vm_that_its_name_means_by_then(vmm, world):
    first = await vmm.create()
    async with vmm.work.lock(first.id):
        start = asyncio.create_task(vmm.start())
        await _waited_for(vmm.work.lock(first.id))
        # The name goes to another VM while the start waits.
        await vmm.store.deleted(None, first.id)
        del world.disks[first.id]
        second = await vmm.create()
        other = vmm.work.lock(second.id)
        await other.acquire()
    await _waited_for(other)
    assert not start.done()
    assert not world.processes
    other.release()
    assert (await start).id == second.id


@pytest.mark.parametrize("state", REPORTS)
async def test_a_vm_is_stopped_or_crashes_from_each_live_state(host, state):
    async def life(vmm):
        vm = await vmm.create()
        for end in (vmm.stop, None):
            running = await vmm.start()
            for event in REPORTS[state]:
                await vmm.supervisor.report("hello", running.boot, event, "")
            assert (await vmm.store.find(vm.id)).state is state
            for call in (vmm.start, vmm.delete):
                with pytest.raises(FailedPrecondition):
                    await call()
            if end:
                assert (await end()).state is State.STOPPED
            else:
                host.world.end(vm.id)
                await vmm.until(vm.id, State.CRASHED)

    await host.live(life)


async def test_the_version_of_firecracker_is_remembered(host):
    async def life(vmm):
        assert await vmm.store.firecracker_version() == ""
        await vmm.create()
        await vmm.start()

    await host.live(life)

    async def next_life(vmm):
        return await vmm.store.firecracker_version()

    assert await host.live(next_life) == "1.12.1"
