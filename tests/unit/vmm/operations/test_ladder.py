"""The ladder of a stop: which rung is climbed when, and what is recorded of it."""

import asyncio
import contextlib
import signal

import pytest
import vmm_driver
import vmm_guest
from vmm_guest import REPORTS
from vmm_life import living, unavailable

from nexus_rpc.errors import Unavailable
from nexus_vmm.operations import ladder
from nexus_vmm.operations.ladder import RUNGS, Rung, descend, rungs
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Condition, Exit, RestartPolicy

KILLED = (Rung.KILL, "signal", signal.SIGKILL)


async def running(world, state=State.RUNNING):
    vm = vmm_guest.vm(state=state)
    driver = vmm_driver.FakeDriver(world)
    await driver.create(vm.id, vm.spec)
    boot = await driver.start(vm)
    return driver, vmm_guest.vm(state=state, boot=boot.boot, pid=boot.pid)


async def ended(world, state=State.RUNNING, grace=0.02):
    driver, vm = await running(world, state)
    down = await descend(driver, vm, grace)
    assert vm.id not in world.processes
    assert vm.id in world.ends  # until kill
    return down.rung, down.end.cause, down.end.signal


@pytest.mark.parametrize("state", sorted(LIVE))
def test_the_shares_of_the_rungs_make_up_the_grace(state):
    steps, share = rungs(vmm_guest.vm(state=state), 20)
    assert sum(RUNGS[rung][0] * share for rung in steps) == pytest.approx(20)
    assert steps == sorted(steps, key=list(Rung).index)
    assert steps[-3:] == [Rung.KEYS, Rung.TERMINATE, Rung.KILL]
    assert (steps[0] is Rung.AGENT) == (state in {State.ONLINE, State.PROVISIONING, State.READY})


def test_without_a_grace_it_is_killed_at_once():
    assert rungs(vmm_guest.vm(state=State.READY), 0) == ([Rung.KILL], 0)


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({}, (Rung.KEYS, "shutdown", 0)),
        ({"obeys": False}, (Rung.TERMINATE, "signal", signal.SIGTERM)),
        ({"asks": "no keyboard"}, (Rung.TERMINATE, "signal", signal.SIGTERM)),
        ({"obeys": False, "heeds": False}, KILLED),
        ({"asks": "no keyboard", "heeds": False}, KILLED),
    ],
)
async def test_each_rung_is_climbed_when_those_before_did_not_help(faults, told):
    world = vmm_driver.World(**faults)
    assert await ended(world) == told


async def test_a_refused_rung_is_not_waited_for():
    async with asyncio.timeout(5):
        world = vmm_driver.World(asks="no keyboard")
        assert (await ended(world, grace=8))[0] is Rung.TERMINATE


async def test_a_grace_of_0_asks_nobody():
    assert await ended(vmm_driver.World(), grace=0) == KILLED


async def test_an_agent_that_shuts_down_is_not_disturbed():
    world = vmm_driver.World()
    driver, vm = await running(world, State.READY)
    asyncio.get_running_loop().call_later(0.01, world.end, vm.id, vmm_driver.SHUTDOWN)
    down = await descend(driver, vm, 60)
    assert (down.rung, down.end.code) == (Rung.AGENT, 0)


async def test_an_agent_that_does_not_is_followed_by_ctrl_alt_del():
    assert (await ended(vmm_driver.World(), State.READY))[0] is Rung.KEYS


async def test_a_paused_guest_is_resumed_to_be_asked():
    world = vmm_driver.World()
    driver, vm = await running(world, State.PAUSED)
    await driver.pause(vm.id)
    assert (await descend(driver, vm, 1)).rung is Rung.KEYS


async def test_what_has_ended_by_itself_is_told_as_that():
    world = vmm_driver.World()
    driver, vm = await running(world)
    world.end(vm.id, Exit("oom", "no memory", signal=9))
    down = await descend(driver, vm, 1)
    assert (down.rung, down.end.cause) == (Rung.NONE, "oom")


async def test_the_end_of_what_outlives_sigkill_is_left_to_the_unit(monkeypatch):
    monkeypatch.setattr(ladder, "_LAST_SECONDS", 0.01)
    world = vmm_driver.World()
    driver, vm = await running(world)

    async def ignored(vm_id, number):
        pass

    driver.signal = ignored
    assert (await descend(driver, vm, 0)).end.signal == signal.SIGKILL
    assert vm.id in world.processes


async def test_without_systemd_nothing_is_claimed():
    world = vmm_driver.World()
    driver, vm = await running(world)

    async def lost(vm_id, number):
        raise unavailable()

    driver.signal = lost
    with pytest.raises(Unavailable):
        await descend(driver, vm, 0)


@living
async def test_a_stop_tells_watchers_that_it_is_under_way_and_what_helped(vmm, world):
    await vmm.create()
    vm = await vmm.start()
    for event in REPORTS[State.READY]:
        await vmm.supervisor.report(vm.id, vm.boot, event, "")

    async def shut_down_when_told():
        """Be the gateway."""
        async with contextlib.aclosing(vmm.hub.watch()) as changes:
            async for _, what in changes:
                if getattr(what, "stopping", False):
                    world.end(vm.id, vmm_driver.SHUTDOWN)
                    return

    gateway = asyncio.create_task(shut_down_when_told())
    stopped = await vmm.stop(grace=60)
    await gateway
    assert stopped.reason == "stopped as asked: its agent shut it down"
    assert not stopped.stopping
    assert (stopped.last_exit.cause, stopped.last_exit.code) == ("stop", 0)
    assert stopped.last_exit.time == stopped.changed


@living
async def test_the_last_exit_is_that_of_the_last_process(vmm, world):
    assert (await vmm.create()).last_exit is None
    assert (await vmm.start()).last_exit is None
    stopped = await vmm.stop(grace=0)
    end = stopped.last_exit
    assert (end.cause, end.code, end.signal) == ("stop", -1, signal.SIGKILL)
    vm = await vmm.start()
    world.end(vm.id, Exit("error", "exit code 148", code=148))
    crashed = await vmm.until(vm.id, State.CRASHED)
    assert (crashed.last_exit.cause, crashed.last_exit.code) == ("error", 148)
    async with vmm.work.lock(vm.id):
        pass
    # Nothing ends by a stop of what has no process.
    assert (await vmm.stop()).last_exit == crashed.last_exit


@living
async def test_an_end_that_nobody_asked_for_keeps_its_cause_in_a_stop(vmm, world):
    await vmm.create(restart=RestartPolicy(Condition.ALWAYS))
    vm = await vmm.start()
    async with vmm.work.lock(vm.id):
        stopping = asyncio.create_task(vmm.stop())
        while not world.ends:
            world.end(vm.id, Exit("oom", "no memory", signal=9))
    stopped = await stopping
    assert stopped.last_exit.cause == "oom"
    assert stopped.restarts.due == 0 or stopped.state is State.STOPPED
