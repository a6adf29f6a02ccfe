"""The end of times to live: what follows, what prolongs it, and kills anywhere in it."""

import asyncio

import pytest
import vmm_guest
from vmm_driver import SHUTDOWN, FakeDriver
from vmm_life import Chaos, Crash, Host, check, living, unavailable

from nexus_rpc.errors import NotFound, ResourceExhausted
from nexus_vmm import clock, lifetime
from nexus_vmm.clock import Moment
from nexus_vmm.operations import expiry, work
from nexus_vmm.records.store import Store
from nexus_vmm.states import State
from nexus_vmm.vm import Condition, Delay, ExpireAction, RestartPolicy, TimeToLive

SHORT = TimeToLive(max_seconds=20)
NETWORK = vmm_guest.NETWORK


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Let a second of a time to live take a millisecond."""
    monkeypatch.setattr(lifetime, "SECOND", 1000)
    monkeypatch.setattr(lifetime, "_LOOK_LEAST", 1000)
    monkeypatch.setattr(lifetime, "RETURN", 200_000)
    monkeypatch.setattr(expiry, "_RETRY_SECONDS", 0.01)


async def running(vmm, ttl, **spec):
    await vmm.create(ttl=ttl, **spec)
    return await vmm.start()


async def gone(vmm, vm):
    """Return once the VM is deleted."""
    await vmm.once(lambda: not vmm.hub.get(vm.id))


def states(vmm):
    return [vm.state for vm in vmm.hub.present()]


async def settled(vmm, vm):
    async with vmm.work.lock(vm.id):
        pass


@living
async def test_it_is_stopped_and_its_policy_starts_it_no_more(vmm, world):
    policy = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)
    vm = await running(vmm, SHORT, restart=policy)
    stopped = await vmm.until(vm.id, State.STOPPED)
    why = "stopped as its time to live of 20 s ended: it shut down on Ctrl-Alt-Del"
    assert stopped.reason == why
    assert (await vmm.store.history(stopped))[-1].reason == why
    assert (stopped.restarts.due, lifetime.ends_at(stopped)) == (0, 0)
    await settled(vmm, vm)
    assert not vmm.supervisor.expiry._timers._handles


@living
async def test_it_is_paused(vmm, world):
    vm = await running(vmm, TimeToLive(20, action=ExpireAction.PAUSE))
    paused = await vmm.until(vm.id, State.PAUSED)
    assert paused.reason == "paused as its time to live of 20 s ended"
    # It begins anew with the resumption.
    await settled(vmm, vm)
    resumed = await vmm.resume()
    assert resumed.lifetime.began > vm.lifetime.began
    await vmm.until(vm.id, State.PAUSED)
    await settled(vmm, vm)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.CRASHED])
async def test_it_is_deleted_live_or_not(host, state):
    async def life(vmm):
        vm = await running(vmm, TimeToLive(60, action=ExpireAction.DELETE))
        if state is State.PAUSED:
            await vmm.pause()
        elif state is State.CRASHED:
            host.world.end(vm.id)
        await gone(vmm, vm)
        with pytest.raises(NotFound):
            await vmm.store.find(vm.id)
        await settled(vmm, vm)
        check([], host.world)
        assert not host.world.disks

    await host.live(life)


@living
async def test_before_the_end_watchers_are_told(vmm, world):
    vm = await running(vmm, TimeToLive(100))
    async with asyncio.timeout(5):
        async for _, what in vmm.hub.watch():
            if getattr(what, "state", None) is State.STOPPED:
                raise AssertionError("it was not told")
            if what.__class__ is vm.__class__ and what.lifetime.warned:
                break
    assert what.state is State.RUNNING
    await vmm.until(vm.id, State.STOPPED)
    await settled(vmm, vm)


@living
async def test_a_stop_ends_it_and_a_start_begins_it_anew(vmm, world):
    vm = await running(vmm, TimeToLive(60_000))
    assert lifetime.ends_at(vm) == vm.lifetime.began + 60_000 * 1000
    assert lifetime.ends_at(await vmm.stop()) == 0
    again = await vmm.start()
    assert again.lifetime.began > vm.lifetime.began


@living
async def test_a_restart_by_policy_does_not_prolong_it(vmm, world):
    policy = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)
    vm = await running(vmm, TimeToLive(60_000), restart=policy)
    world.end(vm.id)
    again = await vmm.until_boot_after(vm)
    assert again.lifetime == vm.lifetime
    await settled(vmm, vm)


@living
async def test_uses_prolong_an_idle_time_and_cost_no_writes(vmm, world):
    vm = await running(vmm, TimeToLive(idle_seconds=4_000))
    stored = vmm.hub.get(vm.id)
    ends = [lifetime.ends_at(await vmm.touch()) for _ in range(5)]
    assert sorted(set(ends)) == ends
    assert ends[0] > lifetime.ends_at(vm)
    assert vmm.hub.get(vm.id) is stored
    assert (await vmm.store.find(vm.id)).lifetime == vm.lifetime


@living
async def test_a_use_a_quarter_later_is_stored(vmm, world):
    vm = await running(vmm, TimeToLive(idle_seconds=40_000))
    began = clock.moment()
    with pytest.MonkeyPatch.context() as patched:
        for seconds in (9, 11):
            wall = began.wall + seconds * 1_000_000
            patched.setattr(expiry, "moment", lambda wall=wall: Moment(wall, began.offset))
            await vmm.touch()
            now = await vmm.store.find(vm.id)
            assert (now.lifetime.used == wall) == (seconds > 10)


@living
async def test_packets_are_uses(vmm, world):
    vm = await running(vmm, TimeToLive(idle_seconds=400), network=NETWORK)
    for count in range(10):
        world.traffic["tap0"] = count
        await asyncio.sleep(0.06)
    assert vmm.hub.get(vm.id).state is State.RUNNING
    stopped = await vmm.until(vm.id, State.STOPPED)
    assert stopped.reason.startswith("stopped as it was not used for 400 s")
    await settled(vmm, vm)


async def test_a_use_that_a_full_disk_takes_no_note_of_is_one(host):
    async def life(vmm):
        vm = await running(vmm, TimeToLive(idle_seconds=400))
        await asyncio.sleep(0.2)
        before = clock.now()
        with pytest.raises(ResourceExhausted):
            await vmm.touch()
        stopped = await vmm.until(vm.id, State.STOPPED)
        assert stopped.changed >= before + 400_000
        await settled(vmm, vm)

    assert await host.live(life, Failing("before use", FULL)) is not Crash


@living
async def test_a_use_while_its_traffic_is_looked_at_counts(vmm, world):
    touched = []

    async def traffic(driver, vm):
        if clock.now() >= vm.lifetime.used + 400_000 and not touched:
            touched.append(clock.now())
            await vmm.touch()
        return 0

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeDriver, "traffic", traffic)
        vm = await running(vmm, TimeToLive(idle_seconds=400), network=NETWORK)
        stopped = await vmm.until(vm.id, State.STOPPED)
    assert stopped.changed >= touched[0] + 400_000
    await settled(vmm, vm)


@living
async def test_an_update_at_the_last_moment_counts(vmm, world):
    expire = Store.expire

    async def late(store, *given):
        if not late.told:
            late.told = await vmm.update(("ttl",), ttl=TimeToLive(300))
        return await expire(store, *given)

    late.told = None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, "expire", late)
        vm = await running(vmm, TimeToLive(20, action=ExpireAction.DELETE))
        stopped = await vmm.until(vm.id, State.STOPPED)
    assert stopped.changed >= vm.lifetime.began + 300_000
    await settled(vmm, vm)


@living
async def test_of_a_vm_that_is_gone_nothing_is_kept(vmm, world):
    vm = await running(vmm, TimeToLive(60_000, idle_seconds=50_000))
    await vmm.touch()
    world.end(vm.id)
    await vmm.until(vm.id, State.CRASHED)
    await vmm.delete()
    its = vmm.supervisor.expiry
    await asyncio.sleep(0)  # it follows the hub, as this test does
    assert (its._used, its._timers._handles, its._retries) == ({}, {}, {})


@living
async def test_a_touch_of_what_has_no_idle_time_changes_nothing(vmm, world):
    vm = await running(vmm, TimeToLive(60_000))
    assert lifetime.ends_at(await vmm.touch()) == lifetime.ends_at(vm)
    await vmm.stop()
    assert lifetime.ends_at(await vmm.touch()) == 0
    with pytest.raises(NotFound):
        await vmm.touch("nobody")


@living
async def test_an_update_counts_at_once(vmm, world):
    vm = await running(vmm, TimeToLive())
    await vmm.update(("ttl",), ttl=SHORT)
    await vmm.until(vm.id, State.STOPPED)
    await settled(vmm, vm)


@living
async def test_an_update_can_take_it_away(vmm, world):
    vm = await running(vmm, TimeToLive(100))
    updated = await vmm.update(("ttl",), ttl=TimeToLive())
    assert lifetime.ends_at(updated) == 0
    await asyncio.sleep(0.15)
    assert vmm.hub.get(vm.id).state is State.RUNNING


@living
async def test_what_cannot_be_paused_is_tried_again(vmm, world):
    world.halts = "not now"
    vm = await running(vmm, TimeToLive(20, action=ExpireAction.PAUSE))
    await vmm.once(lambda: vmm.supervisor.expiry._retries)
    await settled(vmm, vm)
    assert (await vmm.store.find(vm.id)).state is State.RUNNING
    world.halts = ""
    await vmm.until(vm.id, State.PAUSED)
    await settled(vmm, vm)


class Failing(Chaos):
    """A port whose call `name` fails twice."""

    def __init__(self, name, error):
        super().__init__()
        self.name, self.fault, self.left = name, error, 2

    def point(self, name=""):
        if name == self.name and self.left:
            self.left -= 1
            raise self.fault
        super().point(name)


FULL = ResourceExhausted("DISK_FULL", "no room")


@pytest.mark.parametrize(
    ("point", "error"),
    [
        ("before expire", FULL),
        ("before describe", unavailable()),
        ("before kill", unavailable()),
        ("before rested", FULL),
        ("before delete", OSError("I/O error")),
        ("before deleted", FULL),
    ],
)
async def test_a_failure_anywhere_is_tried_again(host, point, error, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)

    async def life(vmm):
        vm = await running(vmm, TimeToLive(20, action=ExpireAction.DELETE))
        failing.armed = True
        await gone(vmm, vm)
        await settled(vmm, vm)
        check([], host.world)

    failing = Failing(point, error)
    failing.left, failing.armed = 0, False

    def arm(name=""):
        if failing.armed:
            failing.armed, failing.left = None, 2
        Failing.point(failing, name)

    failing.point = arm
    await host.live(life, failing)
    assert failing.left == 0


@pytest.mark.parametrize("action", ExpireAction)
async def test_a_kill_at_any_point_is_carried_on_from(action):
    outcome, at = Crash, 0
    while outcome is Crash:
        at += 1
        async with Host.fresh() as host:

            async def expire(vmm, host=host):
                vm = await running(vmm, TimeToLive(2, action=action))
                await vmm.once(lambda: State.RUNNING not in states(vmm))
                await settled(vmm, vm)

            async def finish(vmm, host=host):
                if not vmm.hub.present():
                    return check([], host.world)
                (vm,) = vmm.hub.present()
                if vm.lifetime.began:
                    await vmm.once(lambda: not any(map(lifetime.ends_at, vmm.hub.present())))
                await settled(vmm, vm)
                check(vmm.hub.present(), host.world)
                return None

            outcome = await host.live(expire, Chaos(at))
            assert await host.live(finish) is not Crash
    assert at > 10


async def test_an_idle_end_waits_for_whoever_may_say_that_it_is_in_use(host):
    vm = await host.live(lambda vmm: running(vmm, TimeToLive(idle_seconds=300)))
    await asyncio.sleep(0.4)

    async def second(vmm):
        await asyncio.sleep(0.01)
        assert vmm.hub.get(vm.id).state is State.RUNNING
        await vmm.touch()
        await asyncio.sleep(0.2)
        assert vmm.hub.get(vm.id).state is State.RUNNING
        await vmm.until(vm.id, State.STOPPED)
        await settled(vmm, vm)

    await host.live(second)


async def test_what_was_due_while_vmm_was_away_happens_when_it_is_back(host):
    vm = await host.live(lambda vmm: running(vmm, TimeToLive(30)))
    await asyncio.sleep(0.05)

    async def second(vmm):
        await vmm.until(vm.id, State.STOPPED)
        await settled(vmm, vm)
        check(vmm.hub.present(), host.world)

    await host.live(second)


@living
async def test_a_guest_that_shuts_down_first_has_crashed_and_is_stopped_in_time(vmm, world):
    vm = await running(vmm, TimeToLive(100))
    await vmm.supervisor.report(vm.id, vm.boot, lifetime.Event.HELLO, "")
    for event in vmm_guest.REPORTS[State.READY]:
        await vmm.supervisor.report(vm.id, vm.boot, event, "")
    world.end(vm.id, SHUTDOWN)
    await vmm.until(vm.id, State.CRASHED)
    assert (await vmm.until(vm.id, State.STOPPED)).last_exit.cause == "shutdown"
    await settled(vmm, vm)
