"""kill -9 and failures at every point where vmm touches the world, and the repair after it.

Each scenario is run again and again: killed at its first touch, its second, and so on, until it
gets through. After each, vmm starts anew (and is killed while it repairs, too), store and world
must agree, and the same request must reach what it asked for.
"""

from contextlib import nullcontext, suppress

import pytest
from vmm_life import Chaos, Crash, Host, check, unavailable

from nexus_rpc.errors import FailedPrecondition, ResourceExhausted, Unavailable
from nexus_vmm.operations import work
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Exit


async def created(vmm, world):
    await vmm.create()


async def started(vmm, world):
    await vmm.create()
    await vmm.start()


async def stopped(vmm, world):
    await started(vmm, world)
    await vmm.stop()


async def failed(vmm, world):
    await vmm.create()
    world.fault = "no kernel"
    with pytest.raises(FailedPrecondition):
        await vmm.start()
    world.fault = ""


async def disobedient(vmm, world):
    world.obeys = False
    await started(vmm, world)


async def without_kernel(vmm, world):
    await vmm.create()
    world.fault = "no kernel"


async def nothing(vmm, world):
    pass


async def create(vmm, world):
    return await vmm.create(request_id="once")


async def start(vmm, world):
    return await vmm.start(request_id="once")


async def grow_and_start(vmm, world):
    await vmm.update(["disk_mib"], disk_mib=64, request_id="larger")
    return await vmm.start(request_id="once")


async def stop(vmm, world):
    return await vmm.stop(request_id="once")


async def kill(vmm, world):
    return await vmm.stop(request_id="once", grace=0)


async def delete(vmm, world):
    return await vmm.delete(request_id="once")


async def start_in_vain(vmm, world):
    with pytest.raises(FailedPrecondition, match="no kernel"):
        await vmm.start(request_id="once")


async def crash(vmm, world):
    """End the process from outside, once."""
    (vm,) = await vmm.store.all()
    if world.processes:
        world.end(vm.id)
        await vmm.until(vm.id, State.CRASHED)
    async with vmm.work.lock(vm.id):
        pass


SCENARIOS = {
    "create": (nothing, create, {State.CREATED}),
    "first start": (created, start, {State.RUNNING}),
    "next start": (stopped, start, {State.RUNNING}),
    "start with a larger disk": (stopped, grow_and_start, {State.RUNNING}),
    "start after failure": (failed, start, {State.RUNNING}),
    "failing start": (without_kernel, start_in_vain, {State.FAILED}),
    "stop": (started, stop, {State.STOPPED}),
    "stop with force": (disobedient, stop, {State.STOPPED}),
    "kill": (started, kill, {State.STOPPED}),
    "delete of a fresh VM": (created, delete, set()),
    "delete of a used VM": (stopped, delete, set()),
    "crash": (started, crash, {State.CRASHED}),
}


async def run(scenario, away, first, second):
    """Run a scenario with chaos in it and in the repair after it. Return the outcomes of both."""
    setup, act, states = SCENARIOS[scenario]
    async with Host.fresh() as host:
        world = host.world

        async def once(vmm):
            with suppress(Unavailable):
                await act(vmm, world)

        await host.live(lambda vmm: setup(vmm, world))
        outcome = await host.live(once, first)
        if away and world.processes:
            world.end(next(iter(world.processes)))
        repair = await host.live(lambda vmm: nothing(vmm, world), second)

        async def settle(vmm):
            vms = vmm.hub.present()
            check(vms, world)
            assert vms == await vmm.store.all()
            # A stop that was killed before it was noted finds a VM that has crashed since.
            with suppress(FailedPrecondition) if away else nullcontext():
                await act(vmm, world)
            after = vmm.hub.present()
            check(after, world)
            reached = {vm.state for vm in after}
            assert reached == states or (away and reached == {State.CRASHED})
            assert len(after) == len(states)

        await host.live(settle)
        # Nothing is left to repair.
        calls = Chaos()
        await host.live(lambda vmm: nothing(vmm, world), calls)
    return outcome, repair


@pytest.mark.parametrize("away", [False, True], ids=["", "ends while away"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_kill_at_any_point_is_repaired(scenario, away):
    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        repair, during = Crash, 0
        while repair is Crash:
            during += 1
            outcome, repair = await run(scenario, away, Chaos(at), Chaos(during))
    assert at > 5


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_an_error_at_any_point_is_recovered_from(scenario):
    chaos, at = Chaos(), 0
    while chaos.count >= at:
        at += 1
        chaos = Chaos(at, unavailable())
        await run(scenario, False, chaos, Chaos())
    assert at > 5


async def test_a_kill_at_any_point_of_a_second_boot_is_repaired():
    async def lose_a_boot(vmm, world):
        (vm,) = await vmm.store.all()
        world.end(vm.id, Exit("shutdown", "the guest rebooted"))
        await vmm.until_boot_after(vm)

    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        async with Host.fresh() as host:
            await host.live(lambda vmm: started(vmm, host.world))
            outcome = await host.live(lambda vmm: lose_a_boot(vmm, host.world), Chaos(at))
            await host.live(lambda vmm: nothing(vmm, host.world))

            async def settle(vmm):
                (vm,) = vmm.hub.present()
                check([vm], host.world)
                assert vm.state in {State.RUNNING, State.CRASHED}

            await host.live(settle)
    assert at > 5


async def test_a_delete_that_was_killed_spares_the_next_vm_of_the_name():
    async with Host.fresh() as host:
        await host.live(lambda vmm: created(vmm, host.world))
        chaos = Chaos("half a deletion")
        assert await host.live(lambda vmm: delete(vmm, host.world), chaos) is Crash

        async def heir(vmm):
            made = await vmm.create()
            await delete(vmm, host.world)
            assert vmm.hub.present() == [made]

        await host.live(heir)


async def test_live_vms_of_every_kind_are_adopted():
    async with Host.fresh() as host:

        async def first(vmm):
            for name in "abcdefghijkl":
                await vmm.create(name)
                await vmm.start(name)
            return vmm.hub.present()

        before = await host.live(first)

        async def second(vmm):
            assert vmm.hub.present() == before
            check(before, host.world)
            victim = before[3]
            host.world.end(victim.id)
            assert (await vmm.until(victim.id, State.CRASHED)).name == "d"
            assert (await vmm.stop("e")).state is State.STOPPED

        await host.live(second)
        assert len(host.world.processes) == 10


async def test_what_belongs_to_no_vm_is_removed_but_for_a_disk_with_data(caplog):
    async with Host.fresh() as host:

        async def first(vmm):
            await vmm.create("kept")
            for name in ("blank", "used"):
                await vmm.create(name)
            return await vmm.start("used")

        used = await host.live(first)
        await host.database.write(lambda db: db.execute("DELETE FROM vms WHERE name != 'kept'"))

        async def second(vmm):
            assert "holds data and stays" in caplog.text
            assert host.world.disks.pop(used.id)
            check(vmm.hub.present(), host.world)
            assert [vm.name for vm in vmm.hub.present()] == ["kept"]

        await host.live(second)


async def test_a_unit_that_someone_else_restarted_is_not_adopted():
    async with Host.fresh() as host:
        await host.live(lambda vmm: started(vmm, host.world))
        (process,) = host.world.processes.values()
        process.boot = "another"

        async def second(vmm):
            (vm,) = vmm.hub.present()
            assert vm.state not in LIVE
            check([vm], host.world)

        await host.live(second)


async def test_one_vm_that_cannot_be_repaired_does_not_hold_up_the_others():
    async with Host.fresh() as host:

        async def first(vmm):
            for name in ("a", "b"):
                await vmm.create(name)
                await vmm.start(name)

        await host.live(first)
        for vm_id in list(host.world.processes):
            host.world.end(vm_id)

        async def second(vmm):
            for vm in vmm.hub.present():
                await vmm.until(vm.id, State.CRASHED)

        # host_booted() and all() have one touch each, inventory() two; the fifth is the repair of
        # the first VM.
        assert await host.live(second, Chaos(5, OSError("I/O error"))) is None
        await host.live(lambda vmm: nothing(vmm, host.world))

        async def third(vmm):
            check(vmm.hub.present(), host.world)

        await host.live(third)


class Full(Chaos):
    """A disk without room for the first two records of an end."""

    left = 2

    def point(self, name=""):
        if name == "before rested" and self.left:
            self.left -= 1
            raise ResourceExhausted("DISK_FULL", "no room")
        super().point(name)


@pytest.mark.parametrize("away", [False, True])
async def test_a_full_disk_delays_the_record_of_an_end_and_costs_no_more(away, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)
    async with Host.fresh() as host:
        await host.live(lambda vmm: started(vmm, host.world))
        (vm_id,) = host.world.processes
        if away:
            host.world.end(vm_id)

        async def end(vmm):
            if not away:
                host.world.end(vm_id)
            await vmm.until(vm_id, State.CRASHED)

        full = Full()
        assert await host.live(end, full) is None
        assert full.left == 0
