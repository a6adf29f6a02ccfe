"""What vmm finds as it starts, and while it runs: hosts that went down, full disks, others."""

from signal import SIGKILL

import pytest
from vmm_driver import SHUTDOWN, Process, ended_by
from vmm_life import Chaos, Crash, check, living

from nexus_rpc.errors import ResourceExhausted
from nexus_vmm.operations import work
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import TAKEN, Condition, Delay, Exit, Goal, RestartPolicy

ALWAYS = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)


async def started(vmm, **spec):
    await vmm.create(**spec)
    return await vmm.start()


async def settled(vmm):
    for vm in vmm.hub.present():
        async with vmm.work.lock(vm.id):
            pass
    check(vmm.hub.present(), vmm.world)
    return {vm.name: vm for vm in vmm.hub.present()}


async def lives(host, plan=None, chaos=None):
    """Run one life of vmm on `host`: `plan(vmm)`, or just until all is settled."""

    async def life(vmm):
        vmm.world = host.world
        return await (plan or settled)(vmm)

    return await host.live(life, chaos)


def power_loss(host):
    """Take away all processes, and what systemd knew of them."""
    for process in host.world.processes.values():
        process.ended.set()
    host.world.processes.clear()
    host.world.runs.clear()
    host.world.ends.clear()
    host.boot = "host-boot-2"


async def test_what_the_host_took_with_it_is_told_as_that(host):
    await lives(host, started)
    power_loss(host)
    vms = await lives(host)
    assert vms["hello"].state is State.CRASHED
    assert vms["hello"].reason == "the host went down, and the VM with it"
    assert (vms["hello"].last_exit.cause, vms["hello"].pid) == ("unknown", 0)


async def test_what_ended_while_vmm_was_away_is_told_with_its_end(host):
    vm = await lives(host, started)
    host.world.end(vm.id, Exit("error", "exit code 148", code=148))
    vms = await lives(host)
    assert (vms["hello"].last_exit.cause, vms["hello"].last_exit.code) == ("error", 148)


async def test_a_stop_that_vmm_was_killed_in_is_recorded_as_one(host):
    vm = await lives(host, started)
    assert await lives(host, lambda vmm: vmm.stop(), Chaos("asked")) is Crash
    assert vm.id in host.world.ends
    stopped = (await lives(host))["hello"]
    assert (stopped.state, stopped.last_exit.cause) == (State.STOPPED, "stop")
    assert stopped.reason == f"stopped as asked: {SHUTDOWN.reason}"


async def test_a_stop_that_has_not_reached_the_guest_is_carried_out(host):
    await lives(host, started)
    assert await lives(host, lambda vmm: vmm.stop(), Chaos("after begin")) is Crash
    stopped = (await lives(host))["hello"]
    assert stopped.reason == "stopped as asked, after a restart of vmm: it was killed"
    assert stopped.last_exit.signal == 9


class Full(Chaos):
    """A disk that has no room for the call `name` twice."""

    def __init__(self, name):
        super().__init__()
        self.name, self.left = name, 2

    def point(self, name=""):
        if name == self.name and self.left:
            self.left -= 1
            raise ResourceExhausted("DISK_FULL", "no room")
        super().point(name)


@pytest.mark.parametrize("call", ["before host_booted", "before rested"])
async def test_without_room_others_are_served_and_all_is_recorded_later(host, call, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)

    async def first(vmm):
        for name in ("always", "none"):
            await vmm.create(name, restart=ALWAYS if name == "always" else RestartPolicy())
            await vmm.start(name)

    await lives(host, first)
    power_loss(host)
    full = Full(call)

    async def second(vmm):
        # It answers at once, whatever is still to be recorded.
        assert len(vmm.hub.present()) == 2
        (always, none) = sorted(vmm.hub.present(), key=lambda vm: vm.name)
        assert (await vmm.until_boot_after(always)).state is State.RUNNING
        await vmm.until(none.id, State.CRASHED)
        await settled(vmm)

    await lives(host, second, full)
    assert full.left == 0


async def test_a_second_boot_that_vmm_was_killed_in_is_told_as_that(host):
    vm = await lives(host, started)

    async def lose_a_boot(vmm):
        host.world.end(vm.id, SHUTDOWN)
        await vmm.until_boot_after(vm)

    assert await lives(host, lose_a_boot, Chaos("a process")) is Crash
    crashed = (await lives(host))["hello"]
    assert crashed.state is State.CRASHED
    assert crashed.reason == "vmm was restarted while it was booting this VM once more"
    assert crashed.last_exit.cause == "start"


async def test_a_second_boot_that_vmm_did_not_see_the_end_of_is_adopted(host):
    vm = await lives(host, started)

    async def lose_a_boot(vmm):
        host.world.end(vm.id, SHUTDOWN)
        await vmm.until_boot_after(vm)

    assert await lives(host, lose_a_boot, Chaos("a machine")) is Crash
    again = (await lives(host))["hello"]
    assert (again.state, again.goal) == (State.RUNNING, Goal.RUN)
    assert again.boot != vm.boot
    assert again.reason == "booted once more, and adopted after a restart of vmm"


@living
async def test_a_unit_that_someone_else_restarts_is_noticed_at_once(vmm, world):
    await vmm.create(restart=ALWAYS)
    vm = await vmm.start()
    world.restart(vm.id)
    again = await vmm.until_boot_after(vm)
    assert again.last_exit.reason in {TAKEN.reason, "Firecracker was ended by SIGKILL"}
    async with vmm.work.lock(vm.id):
        pass


async def test_a_unit_that_someone_else_started_for_a_vm_at_rest_is_ended(host):
    async def first(vmm):
        await started(vmm)
        return await vmm.stop()

    vm = await lives(host, first)
    host.world.processes[vm.id] = Process("another", 7)
    vms = await lives(host)
    assert vms["hello"].state is State.STOPPED
    assert not host.world.processes


async def test_a_missing_image_costs_a_running_vm_nothing(host):
    vm = await lives(host, started)
    host.world.images.clear()
    vms = await lives(host)
    assert vms["hello"].state in LIVE
    assert vms["hello"].boot == vm.boot
    host.world.end(vm.id, ended_by(SIGKILL))
    assert (await lives(host))["hello"].state is State.CRASHED
