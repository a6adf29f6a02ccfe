"""The host's shutdown: VMs are stopped in order, and those that are to run come back with it."""

import asyncio

import pytest
from vmm_driver import SHUTDOWN
from vmm_life import Chaos, Crash, Host, check, living, unavailable

from nexus_rpc.errors import Unavailable
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Condition, Delay, RestartPolicy, TimeToLive

ON_BOOT = RestartPolicy(Condition.ON_BOOT)
ALWAYS = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)


async def some(vmm):
    """Make VMs in many states, of which c, e and g are to come back."""
    for name in "abcdefg":
        await vmm.create(name, restart=ON_BOOT if name in "cdefg" else RestartPolicy())
    for name in "bcdeg":
        await vmm.start(name)
    await vmm.stop("d")
    await vmm.pause("e")
    await vmm.start("f")
    await vmm.stop("f")


async def settle(vmm):
    for vm in vmm.hub.present():
        async with vmm.work.lock(vm.id):
            pass


def states(vmm):
    return {vm.name: vm.state for vm in vmm.hub.present()}


async def test_all_are_stopped_and_those_that_are_to_run_come_back_with_the_host(host):
    async def shutdown(vmm):
        await some(vmm)
        assert await vmm.drain() == 4
        assert not host.world.processes
        (b,) = [vm for vm in vmm.hub.present() if vm.name == "b"]
        assert b.reason == "stopped as the host shuts down: it shut down on Ctrl-Alt-Del"
        check(vmm.hub.present(), host.world)
        assert await vmm.drain() == 0
        return states(vmm)

    before = await host.live(shutdown)

    async def restarted(vmm):
        """A restart of vmm before the host is down starts nothing."""
        await settle(vmm)
        assert states(vmm) == before

    await host.live(restarted)
    host.boot = "host-boot-2"

    async def after_boot(vmm):
        await vmm.once(lambda: len(host.world.processes) == 3)
        await settle(vmm)
        live = {name for name, state in states(vmm).items() if state in LIVE}
        assert live == {"c", "e", "g"}
        check(vmm.hub.present(), host.world)

    await host.live(after_boot)
    host.boot = "host-boot-3"
    # What was drained once is not remembered for ever.
    for name in ("c", "e", "g"):
        await host.live(lambda vmm, name=name: vmm.stop(name))
    host.boot = "host-boot-4"

    async def later(vmm):
        await settle(vmm)
        assert not host.world.processes

    await host.live(later)


async def test_a_pending_restart_waits_for_the_next_boot(host):
    async def shutdown(vmm):
        await vmm.create(restart=RestartPolicy(Condition.ALWAYS, Delay.FIXED, 3600))
        vm = await vmm.start()
        host.world.end(vm.id)
        vm = await vmm.until(vm.id, State.CRASHED)
        await settle(vmm)
        assert await vmm.drain() == 0
        assert not vmm.supervisor.keeper._timers._handles
        return (await vmm.store.find(vm.id)).restarts

    restarts = await host.live(shutdown)
    assert (restarts.due, restarts.drained) == (0, True)
    host.boot = "host-boot-2"

    async def after_boot(vmm):
        (vm,) = vmm.hub.present()
        assert (await vmm.until(vm.id, State.RUNNING)).restarts.drained is False
        await settle(vmm)

    await host.live(after_boot)


@living
async def test_nothing_is_started_any_more(vmm, world):
    await vmm.create("a")
    await vmm.create("b", restart=ALWAYS)
    vm = await vmm.start("b")
    await vmm.drain()
    for name in "ab":
        with pytest.raises(Unavailable, match="the host shuts down") as caught:
            await vmm.start(name)
        assert caught.value.reason == "STOPPING"
    await vmm.delete("a")
    assert (await vmm.store.find(vm.id)).state is State.STOPPED


@living
async def test_a_start_that_is_under_way_is_awaited_and_stopped(vmm, world):
    vm = await vmm.create()
    async with vmm.work.lock(vm.id):
        starting = asyncio.create_task(vmm.start())
        await asyncio.sleep(0)
        draining = asyncio.create_task(vmm.drain())
    await asyncio.gather(starting, draining, return_exceptions=True)
    assert not world.processes


@pytest.mark.parametrize(("grace", "at_once"), [(0, 1), (30, 1), (120, 3), (300, 6)])
async def test_those_that_began_last_are_stopped_first_and_together_only_for_want_of_time(
    host, grace, at_once
):
    async def life(vmm):
        for name in "abcdefgh":
            await vmm.create(name)
            await vmm.start(name)
        order, under_way, most = [], set(), 0
        all_that_may = asyncio.Event()
        put_down = vmm.supervisor.steps.put_down

        async def noted(vm, grace, why):
            nonlocal most
            order.append(vm.name)
            under_way.add(vm.name)
            most = max(most, len(under_way))
            if most == at_once:
                all_that_may.set()
            await asyncio.wait_for(all_that_may.wait(), 10)
            under_way.remove(vm.name)
            return await put_down(vm, 0, why)

        vmm.supervisor.steps.put_down = noted
        assert await vmm.drain(grace) == 8
        assert (order, most) == (list("hgfedcba"), at_once)

    await host.live(life)


@living
async def test_one_that_cannot_be_stopped_does_not_hold_up_the_others(vmm, world):
    for name in "abc":
        await vmm.create(name)
        await vmm.start(name)
    describe = vmm.supervisor.steps._driver._port.describe
    (b,) = [vm for vm in vmm.hub.present() if vm.name == "b"]

    async def failing(vm_id):
        if vm_id == b.id:
            raise unavailable()
        return await describe(vm_id)

    vmm.supervisor.steps._driver._port.describe = failing
    with pytest.raises(Unavailable):
        await vmm.drain()
    assert set(world.processes) == {b.id}
    vmm.supervisor.steps._driver._port.describe = describe
    assert await vmm.drain() == 1


@living
async def test_what_was_being_stopped_for_good_does_not_come_back(vmm, world):
    await vmm.create(restart=ALWAYS)
    vm = await vmm.start()
    driver = vmm.supervisor.steps._driver
    describe = driver._port.describe

    async def failing(vm_id):
        raise unavailable()

    driver._port.describe = failing
    with pytest.raises(Unavailable):
        await vmm.stop()
    driver._port.describe = describe
    assert await vmm.drain() == 1
    assert not (await vmm.store.find(vm.id)).restarts.drained


async def test_its_time_to_live_goes_on_where_it_was(host):
    async def shutdown(vmm):
        await vmm.create(restart=ON_BOOT, ttl=TimeToLive(3600))
        vm = await vmm.start()
        await vmm.drain()
        return vm

    before = await host.live(shutdown)
    host.boot = "host-boot-2"

    async def after_boot(vmm):
        again = await vmm.until(before.id, State.RUNNING)
        assert again.lifetime.began == before.lifetime.began
        await settle(vmm)

    await host.live(after_boot)


async def test_a_kill_at_any_point_is_carried_on_from():
    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        async with Host.fresh() as host:

            async def setup(vmm):
                for name in "ab":
                    await vmm.create(name, restart=ON_BOOT)
                    await vmm.start(name)

            async def finish(vmm, host=host):
                check(vmm.hub.present(), host.world)
                await vmm.drain()
                check(vmm.hub.present(), host.world)
                assert not host.world.processes

            await host.live(setup)
            outcome = await host.live(lambda vmm: vmm.drain(), Chaos(at))
            await host.live(finish)
            host.boot = "host-boot-2"

            async def after_boot(vmm, host=host):
                await vmm.once(lambda: len(host.world.processes) == 2)
                await settle(vmm)
                check(vmm.hub.present(), host.world)

            assert await host.live(after_boot) is None
    assert at > 10


@living
async def test_a_guest_that_shuts_down_meanwhile_is_stopped_too(vmm, world):
    await vmm.create()
    vm = await vmm.start()
    world.end(vm.id, SHUTDOWN)
    await vmm.drain()
    await settle(vmm)
    assert (await vmm.store.find(vm.id)).state in {State.STOPPED, State.CRASHED}


async def test_a_host_that_goes_down_before_all_are_stopped_starts_them_again(host):
    async def setup(vmm):
        vm = await vmm.create(restart=ON_BOOT)
        await vmm.start()
        await vmm.store.drain(vm.id)

    await host.live(setup)
    for vm_id in list(host.world.processes):
        host.world.end(vm_id)
    host.world.ends.clear()
    host.world.runs.clear()
    host.boot = "host-boot-2"

    async def after_boot(vmm):
        await vmm.once(lambda: len(host.world.processes) == 1)
        await settle(vmm)
        check(vmm.hub.present(), host.world)

    assert await host.live(after_boot) is None
