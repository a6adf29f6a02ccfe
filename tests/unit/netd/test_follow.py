import asyncio
import time

import pytest
from netd_world import attach

from nexus.vmm.v1 import vmm_pb2
from nexus.vmm.v1.vmm_pb2 import Vm, WatchVmsResponse
from nexus_netd import follow
from nexus_netd.follow import GRACE, Follower
from nexus_rpc.errors import NexusError
from nexus_rpc.ids import new_vm_id
from nexus_rpc.vms import Lost

SYNCED = WatchVmsResponse(synced=True)
MISSED = WatchVmsResponse(missed=True)
LOST = Lost(NexusError("UNAVAILABLE", "vmm is away"))


def told(vm, name="", state=vmm_pb2.VM_STATE_STOPPED):
    return WatchVmsResponse(vm=Vm(id=vm, name=name, state=state))


def deleted(vm):
    return WatchVmsResponse(deleted_vm_id=vm)


class Clock:
    """A clock that stands still until it is put ahead."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return self.ahead


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def tell(netd, clock):
    """Tell a follower events, wait until they are taken in, and let it sweep."""
    queue = asyncio.Queue()
    follower = Follower(netd, now=clock)
    task = asyncio.create_task(follower.run(_drained(queue)))

    async def tell(*items):
        for item in items:
            queue.put_nowait(item)
        async with asyncio.timeout(10):
            await queue.join()
            await follower.sweep()
        assert not task.done()

    yield tell
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _drained(queue):
    while True:
        yield await queue.get()
        queue.task_done()  # after the follower has taken the event in


async def ports(netd):
    return set(netd.view().ports)


async def test_the_port_of_a_deleted_vm_is_released(netd, tell):
    kept, gone, stranger = (new_vm_id() for _ in range(3))
    await attach(netd, kept)
    await attach(netd, gone)
    await tell(told(kept), told(gone), SYNCED, deleted(gone), deleted(stranger))
    assert await ports(netd) == {kept}


async def test_ports_without_vm_are_released_after_ten_minutes(netd, clock, tell):
    with_vm, without = new_vm_id(), new_vm_id()
    await attach(netd, with_vm)
    await attach(netd, without)
    clock.ahead = GRACE * 5
    await tell(told(with_vm), SYNCED)
    clock.ahead += GRACE - 60
    await tell(told(with_vm))
    assert await ports(netd) == {with_vm, without}
    clock.ahead += 120
    await tell(told(with_vm))
    assert await ports(netd) == {with_vm}


async def test_a_jump_of_the_hosts_clock_releases_nothing(netd, monkeypatch):
    vm = new_vm_id()
    await attach(netd, vm)
    follower = Follower(netd)
    await follower._take(SYNCED)
    await follower.sweep()
    late = time.time() + GRACE * 1000
    monkeypatch.setattr(time, "time", lambda: late)
    await follower.sweep()
    assert await ports(netd) == {vm}


async def test_the_time_without_a_vm_begins_anew_when_vmm_was_away(netd, clock, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(SYNCED)
    clock.ahead = GRACE * 2
    await tell(LOST, SYNCED)
    assert await ports(netd) == {vm}


async def test_nothing_is_released_before_the_present_has_been_told(netd, clock, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    clock.ahead = GRACE * 2
    await tell(told(new_vm_id()))
    assert await ports(netd) == {vm}


async def test_while_vmm_is_away_nothing_is_released(netd, clock, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(told(vm), SYNCED, LOST)
    clock.ahead = GRACE * 2
    await tell(LOST, MISSED, told(new_vm_id()))
    assert await ports(netd) == {vm}
    await tell(SYNCED)
    clock.ahead += GRACE * 2
    await tell()
    assert await ports(netd) == set()


async def test_a_release_that_fails_is_tried_again(netd, kernel, clock, tell, caplog):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(told(vm), SYNCED)
    kernel.calls.clear()
    kernel.fail_at = 1
    await tell(deleted(vm))
    assert "not released" in caplog.text
    clock.ahead = GRACE * 2
    await tell()
    assert await ports(netd) == set()


async def test_it_sweeps_by_itself(netd, clock, monkeypatch):
    released = asyncio.Event()
    detach = netd.detach

    async def tell_release(vm):
        released.set()
        return await detach(vm)

    monkeypatch.setattr(netd, "detach", tell_release)
    queue = asyncio.Queue()
    task = asyncio.create_task(Follower(netd, sweep=0.001, now=clock).run(_drained(queue)))
    queue.put_nowait(SYNCED)
    await queue.join()
    await attach(netd, new_vm_id())
    monkeypatch.setattr(follow, "GRACE", -1.0)
    async with asyncio.timeout(10):
        await released.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_names_and_who_runs_are_taken_in(netd, tell):
    vm, other = new_vm_id(), new_vm_id()
    await attach(netd, vm)
    await tell(told(vm, "web", vmm_pb2.VM_STATE_READY), told(other, "api"), SYNCED)
    assert netd.view().ports[vm].vm_name == "web"
    assert netd.state.live == {vm}
    await attach(netd, other)
    assert netd.view().ports[other].vm_name == "api"
    await tell(told(vm, "web", vmm_pb2.VM_STATE_STOPPED), told(other, "db"))
    assert netd.view().ports[other].vm_name == "db"
    assert netd.state.live == set()
    await tell(told(vm, "web", vmm_pb2.VM_STATE_RUNNING), LOST)
    # VMs outlive vmm.
    assert (netd.state.live, netd.state.names) == ({vm}, {vm: "web", other: "db"})


async def test_vms_that_have_not_changed_are_not_told_again_and_are_there_still(netd, clock, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(told(vm, "web", vmm_pb2.VM_STATE_READY), SYNCED, LOST, SYNCED)
    clock.ahead = GRACE * 2
    await tell()
    assert await ports(netd) == {vm}
    assert netd.state.live == {vm}
    await tell(LOST, deleted(vm), SYNCED)
    assert await ports(netd) == set()
    assert netd.state.live == set()


async def test_what_the_present_lacks_after_missed_events_is_no_more(netd, clock, tell):
    vm, other = new_vm_id(), new_vm_id()
    await attach(netd, vm)
    await attach(netd, other)
    ready = vmm_pb2.VM_STATE_READY
    await tell(told(vm, "web", ready), told(other, "db", ready), SYNCED, MISSED)
    assert netd.state.live == {vm, other}  # until the present has been told
    clock.ahead = GRACE * 2
    await tell(told(other, "db", ready))
    assert await ports(netd) == {vm, other}
    await tell(SYNCED)
    assert (netd.state.live, netd.state.names) == ({other}, {other: "db"})
    assert netd.view().ports[vm].vm_name == "web"
    clock.ahead += GRACE * 2
    await tell()
    assert await ports(netd) == {other}


async def test_a_name_that_cannot_be_stored_is_told_again(netd, kernel, tell, caplog):
    vm = new_vm_id()
    await attach(netd, vm)
    kernel.calls.clear()
    kernel.fail_at = 1
    await tell(told(vm, "web"))
    assert "is not stored" in caplog.text
    await tell(told(vm, "web"))
    assert netd.view().ports[vm].vm_name == "web"
