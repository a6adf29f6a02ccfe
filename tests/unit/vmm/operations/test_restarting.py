"""VMs that their restart policy starts again: over ends, stops, restarts of vmm and of the host."""

import asyncio

import pytest
from vmm_life import Chaos, Crash, Host, check, crashed_of

from nexus_rpc.errors import ResourceExhausted
from nexus_vmm.operations import steps, work
from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import Condition, Delay, Exit, RestartPolicy

NOW = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)
LATER = RestartPolicy(Condition.ALWAYS, Delay.FIXED, 3600)
ON_BOOT = RestartPolicy(Condition.ON_BOOT)


async def started(vmm, policy=NOW, name="hello"):
    await vmm.create(name, restart=policy)
    return await vmm.start(name)


async def crashed(vmm, world, policy=LATER, name="hello"):
    """Return a VM that crashed and is to be started again in an hour."""
    return await crashed_of(vmm, world, policy, name)


async def test_a_vm_that_is_killed_comes_back_and_its_history_says_why(host):
    async def life(vmm):
        first = await started(vmm)
        host.world.end(first.id)
        second = await vmm.until_boot_after(first)
        assert (second.state, second.restarts.count, second.restarts.due) == (State.RUNNING, 1, 0)
        reasons = [step.reason for step in await vmm.store.history(second)]
        assert reasons == [
            "Firecracker runs",
            "Firecracker was ended by SIGKILL; to be started again in 0 s",
            "started again by its policy, always",
        ]
        check(vmm.hub.present(), host.world)
        host.world.end(first.id)
        assert (await vmm.until_boot_after(second)).id == first.id
        assert (await vmm.store.find(first.id)).restarts.count == 2
        await vmm.stop()
        assert (await vmm.start()).restarts.count == 0

    await host.live(life)


async def test_a_deliberate_stop_starts_nothing(host):
    async def life(vmm):
        vm = await started(vmm)
        for grace in (10, 0):
            stopped = await vmm.stop(grace=grace)
            assert (stopped.state, stopped.restarts.due) == (State.STOPPED, 0)
            assert not vmm.supervisor.keeper._timers._handles
            vm = await vmm.start(vm.id)

    await host.live(life)


async def test_a_guest_that_shuts_down_stays_down_after_on_failure(host):
    async def life(vmm):
        vm = await started(vmm, RestartPolicy(Condition.ON_FAILURE, Delay.IMMEDIATE))
        for event in (Event.HELLO, Event.PROVISIONING, Event.READY):
            await vmm.supervisor.report(vm.id, vm.boot, event, "")
        host.world.end(vm.id, Exit("shutdown", "the guest shut down"))
        assert (await vmm.until(vm.id, State.CRASHED)).restarts.due == 0

    await host.live(life)


@pytest.mark.parametrize("call", ["stop", "delete"])
async def test_stop_and_delete_cancel_what_is_pending(host, call):
    async def life(vmm):
        vm = await crashed(vmm, host.world)
        due = vm.restarts.due
        assert vm.restarts.due
        await getattr(vmm, call)(request_id="once")
        assert not vmm.supervisor.keeper._timers._handles
        # Were its time come by now, nothing would happen.
        await vmm.supervisor.keeper._restart(vm.id, due)
        assert not host.world.processes
        check(vmm.hub.present(), host.world)
        assert [vm.state for vm in vmm.hub.present()] == [State.STOPPED] * (call == "stop")
        await getattr(vmm, call)(request_id="once")

    await host.live(life)


async def test_start_takes_the_place_of_what_is_pending(host):
    async def life(vmm):
        vm = await crashed(vmm, host.world)
        running = await vmm.start()
        await vmm.supervisor.keeper._restart(vm.id, vm.restarts.due)
        assert vmm.hub.present() == [running]

    await host.live(life)


async def test_a_crash_loop_ends_in_failed_with_the_consoles_last_lines(host):
    async def life(vmm):
        vm = await started(vmm)
        host.world.words[vm.id] = "Kernel panic | not syncing"
        for _ in range(9):
            host.world.end(vm.id)
            vm = await vmm.until_boot_after(vm)
        host.world.end(vm.id)
        failed = await vmm.until(vm.id, State.FAILED)
        assert "gave up: 10 ends within 10 minutes" in failed.reason
        assert failed.reason.endswith("Kernel panic | not syncing")
        assert (failed.restarts.count, failed.restarts.due) == (9, 0)
        last = (await vmm.store.history(vm))[-2:]
        assert [step.new for step in last] == [State.CRASHED, State.FAILED]
        async with vmm.work.lock(vm.id):
            check(vmm.hub.present(), host.world)
        assert (await vmm.start()).restarts.count == 0

    await host.live(life)


async def test_starts_that_fail_end_there_too(host):
    async def life(vmm):
        vm = await started(vmm)
        host.world.fault = "no kernel"
        host.world.end(vm.id)
        while "gave up" not in (await vmm.store.find(vm.id)).reason:
            await vmm.until(vm.id, State.FAILED)
        check(vmm.hub.present(), host.world)
        host.world.fault = ""
        assert (await vmm.start()).state is State.RUNNING

    async with asyncio.timeout(10):
        await host.live(life)


async def test_one_wait_does_not_delay_another(host):
    async def life(vmm):
        slow = await crashed(vmm, host.world, name="slow")
        quick = await started(vmm, name="quick")
        host.world.end(quick.id)
        await vmm.until_boot_after(quick)
        assert (await vmm.store.find("slow")) == slow

    await host.live(life)


async def test_what_is_due_goes_on_after_a_restart_of_vmm(host):
    async def first(vmm):
        vm = await crashed(vmm, host.world)
        await host.database.write(
            lambda db: db.execute("UPDATE vms SET restarts = json_set(restarts, '$.due', 1)")
        )
        return vm

    vm = await host.live(first)

    async def second(vmm):
        again = await vmm.until(vm.id, State.RUNNING)
        assert again.restarts.count == 1

    await host.live(second)


async def test_what_is_not_due_yet_is_waited_for_after_a_restart_of_vmm(host):
    vm = await host.live(lambda vmm: crashed(vmm, host.world))

    async def second(vmm):
        assert vmm.hub.present() == [vm]
        assert vm.id in vmm.supervisor.keeper._timers._handles

    await host.live(second)


async def test_an_end_while_vmm_was_away_is_answered(host):
    vm = await host.live(started)
    host.world.end(vm.id)

    async def second(vmm):
        assert (await vmm.until_boot_after(vm)).restarts.count == 1

    await host.live(second)


def _lose_power(host):
    host.boot += "+"
    for vm_id in list(host.world.processes):
        host.world.end(vm_id)
    host.world.runs.clear()
    host.world.ends.clear()


@pytest.mark.parametrize("policy", [ON_BOOT, NOW, RestartPolicy(Condition.ON_FAILURE)])
async def test_a_boot_of_the_host_starts_what_ran_and_what_had_crashed(host, policy):
    async def first(vmm):
        await started(vmm, policy, "ran")
        await crashed(vmm, host.world, ON_BOOT, "crashed")
        await started(vmm, policy, "stopped")
        await vmm.stop("stopped")
        await vmm.create("fresh", restart=policy)
        await started(vmm, RestartPolicy(), "without")

    await host.live(first)
    _lose_power(host)

    async def second(vmm):
        states = {vm.name: vm.state for vm in vmm.hub.present()}
        assert states["without"] is State.CRASHED
        for name in ("ran", "crashed"):
            vm = await vmm.store.find(name)
            assert (await vmm.until(vm.id, State.RUNNING)).restarts.count == 1
        assert (await vmm.store.find("stopped")).state is State.STOPPED
        assert (await vmm.store.find("fresh")).state is State.CREATED
        check(vmm.hub.present(), host.world)

    await host.live(second)

    async def third(vmm):
        assert len(host.world.processes) == 2
        vm = await vmm.store.find("crashed")
        assert vm.state in LIVE

    await host.live(third)


async def test_on_boot_answers_no_end_without_a_boot_of_the_host(host):
    vm = await host.live(lambda vmm: started(vmm, ON_BOOT))
    host.world.end(vm.id)

    async def second(vmm):
        (now,) = vmm.hub.present()
        assert (now.state, now.restarts.due) == (State.CRASHED, 0)

    await host.live(second)


async def test_a_kill_at_any_point_of_a_restart_is_carried_on_from(host):
    async def bring_back(vmm):
        (vm,) = await vmm.store.all()
        if vm.id in host.world.processes:
            host.world.end(vm.id)
        await vmm.until_boot_after(vm)

    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        async with Host.fresh() as host:
            await host.live(started)
            outcome = await host.live(bring_back, Chaos(at))
            repair, during = Crash, 0
            while repair is Crash:
                during += 1

                async def back(vmm):
                    (vm,) = vmm.hub.present()
                    await vmm.until(vm.id, State.RUNNING)
                    async with vmm.work.lock(vm.id):
                        check(vmm.hub.present(), host.world)

                repair = await host.live(back, Chaos(during if during < 12 else 0))
    assert at > 10


async def test_a_kill_at_any_point_after_a_boot_of_the_host_is_carried_on_from(host):
    async def back(vmm):
        (vm,) = vmm.hub.present()
        await vmm.until(vm.id, State.RUNNING)

    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        async with Host.fresh() as host:
            await host.live(lambda vmm: started(vmm, ON_BOOT))
            _lose_power(host)
            outcome = await host.live(back, Chaos(at))
            await host.live(back)
    assert at > 10


async def test_a_stop_that_was_killed_at_any_point_leaves_nothing_pending(host):
    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        async with Host.fresh() as host:
            await host.live(lambda vmm: crashed(vmm, host.world))
            outcome = await host.live(lambda vmm: vmm.stop(request_id="once"), Chaos(at))

            async def again(vmm):
                assert (await vmm.stop(request_id="once")).state is State.STOPPED
                assert not vmm.supervisor.keeper._timers._handles

            await host.live(again)
    assert at > 3


class Full(Chaos):
    """A disk without room for the first two records of what a restart does."""

    def __init__(self, name):
        super().__init__()
        self.name, self.left = name, 2

    def point(self, name=""):
        if name == self.name and self.left:
            self.left -= 1
            raise ResourceExhausted("DISK_FULL", "no room")
        super().point(name)


@pytest.mark.parametrize("record", ["before take_up", "before started", "before rested"])
async def test_a_full_disk_delays_a_restart_and_costs_no_more(host, record, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)
    vm = await host.live(started)
    host.world.end(vm.id)
    full = Full(record)

    await host.live(lambda vmm: vmm.until_boot_after(vm), full)
    assert full.left == 0


async def test_a_console_that_cannot_be_read_hides_no_crash_loop(host, monkeypatch):
    async def life(vmm):
        monkeypatch.setattr(steps, "nears_loop", lambda *_: True)
        vm = await started(vmm)
        host.world.end(vm.id)
        await vmm.until_boot_after(vm)

    assert await host.live(life, Chaos("before last_words", OSError("I/O error"))) is None
