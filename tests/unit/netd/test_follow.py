"""Names and ports by what vmm tells, in made-up time: ten minutes take none."""

import asyncio
from contextlib import asynccontextmanager
from inspect import signature

from netd_world import MortalDatabase, attach, default, over
from virtual_time import VirtualLoop

from nexus.vmm.v1 import vmm_pb2
from nexus.vmm.v1.vmm_pb2 import Vm, WatchVmsResponse
from nexus_netd.claims import CLAIM_SECONDS
from nexus_netd.feed import Feed
from nexus_netd.follow import Follower
from nexus_netd.records.schema import MIGRATIONS
from nexus_rpc.database import Database
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


def in_made_up_time(test):
    """Give a test netd, what tells its follower events and waits until they are taken in, and more.

    More: its kernel, and caplog, where it names them.
    """

    def run(kernel, tmp_path, caplog):
        caplog.set_level("INFO")
        known = {"kernel": kernel, "caplog": caplog}
        wanted = {name: known[name] for name in signature(test).parameters if name in known}

        async def story():
            async with _netd(kernel, tmp_path) as netd, _following(netd) as tell:
                await test(netd=netd, tell=tell, **wanted)

        loop = VirtualLoop()
        try:
            loop.run(story())
        finally:
            loop.close()

    return run


@asynccontextmanager
async def _netd(kernel, path):
    database = await Database.open(path / "netd.db", MIGRATIONS)
    try:
        yield await over(kernel, MortalDatabase(database, kernel), default())
    finally:
        await database.close()


@asynccontextmanager
async def _following(netd):
    queue = asyncio.Queue()
    task = asyncio.create_task(Follower(netd).run(_drained(queue)))

    async def tell(*items):
        for item in items:
            queue.put_nowait(item)
        await queue.join()
        assert not task.done()

    try:
        yield tell
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def _drained(queue):
    while True:
        yield await queue.get()
        queue.task_done()  # after the follower has taken the event in


async def ports(netd):
    return set(netd.view().ports)


@in_made_up_time
async def test_the_port_of_a_deleted_vm_is_released(netd, tell):
    kept, gone, stranger = (new_vm_id() for _ in range(3))
    await attach(netd, kept)
    await attach(netd, gone)
    await tell(told(kept), told(gone), SYNCED, deleted(gone), deleted(stranger))
    assert await ports(netd) == {kept}


@in_made_up_time
async def test_a_port_that_no_vm_claims_is_released_after_ten_minutes(netd, tell, caplog):
    caplog.set_level("INFO")
    with_vm, without = new_vm_id(), new_vm_id()
    await attach(netd, with_vm)
    await attach(netd, without)
    await asyncio.sleep(CLAIM_SECONDS * 5)
    await tell(told(with_vm), SYNCED)
    await asyncio.sleep(CLAIM_SECONDS - 1)
    assert await ports(netd) == {with_vm, without}
    await asyncio.sleep(2)
    assert await ports(netd) == {with_vm}
    assert f"port of VM {without} released: in 600 s no VM has claimed it" in caplog.text
    await asyncio.sleep(CLAIM_SECONDS * 5)
    assert await ports(netd) == {with_vm}


@in_made_up_time
async def test_each_port_has_its_own_ten_minutes(netd, tell):
    first, second, third = (new_vm_id() for _ in range(3))
    await tell(SYNCED)
    await attach(netd, first)
    await asyncio.sleep(100)
    await attach(netd, second)
    await asyncio.sleep(100)
    await attach(netd, third)
    await tell(told(second))
    await asyncio.sleep(CLAIM_SECONDS - 199)
    assert await ports(netd) == {second, third}
    await asyncio.sleep(198)
    assert await ports(netd) == {second, third}
    await asyncio.sleep(2)
    assert await ports(netd) == {second}


@in_made_up_time
async def test_a_port_that_is_made_anew_has_ten_minutes_anew(netd, tell):
    vm = new_vm_id()
    await tell(SYNCED)
    await attach(netd, vm)
    await asyncio.sleep(CLAIM_SECONDS - 1)
    await netd.detach(vm)
    await attach(netd, vm)
    await asyncio.sleep(CLAIM_SECONDS - 1)
    assert await ports(netd) == {vm}
    await asyncio.sleep(2)
    assert await ports(netd) == set()


@in_made_up_time
async def test_a_port_is_kept_whose_vm_is_told_at_the_last_moment(netd, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(SYNCED)
    await asyncio.sleep(CLAIM_SECONDS - 0.001)
    await tell(told(vm))
    await asyncio.sleep(CLAIM_SECONDS * 2)
    assert await ports(netd) == {vm}


@in_made_up_time
async def test_ports_are_found_among_more_than_can_be_told(netd, tell):
    netd.state.feed = Feed(behind=1)
    vms = {new_vm_id() for _ in range(5)}
    await tell(SYNCED)
    await asyncio.gather(*(attach(netd, vm) for vm in vms))
    await asyncio.sleep(CLAIM_SECONDS + 1)
    assert await ports(netd) == set()


@in_made_up_time
async def test_the_time_without_a_vm_begins_anew_when_vmm_was_away(netd, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(SYNCED)
    await asyncio.sleep(CLAIM_SECONDS - 1)
    await tell(LOST, SYNCED)
    await asyncio.sleep(CLAIM_SECONDS - 1)
    assert await ports(netd) == {vm}
    await asyncio.sleep(2)
    assert await ports(netd) == set()


@in_made_up_time
async def test_nothing_is_released_before_the_present_has_been_told(netd, tell):
    vm, later = new_vm_id(), new_vm_id()
    await attach(netd, vm)
    await tell(told(new_vm_id()))
    await attach(netd, later)
    await asyncio.sleep(CLAIM_SECONDS * 2)
    assert await ports(netd) == {vm, later}


@in_made_up_time
async def test_while_vmm_is_away_nothing_is_released(netd, tell):
    vm, alone, later = (new_vm_id() for _ in range(3))
    await attach(netd, vm)
    await attach(netd, alone)
    await tell(told(vm), SYNCED, LOST)
    await attach(netd, later)
    await asyncio.sleep(CLAIM_SECONDS * 2)
    await tell(LOST, MISSED, told(new_vm_id()))
    await asyncio.sleep(CLAIM_SECONDS * 2)
    assert await ports(netd) == {vm, alone, later}
    await tell(SYNCED)
    await asyncio.sleep(CLAIM_SECONDS + 1)
    assert await ports(netd) == set()


@in_made_up_time
async def test_a_release_that_fails_is_tried_again(netd, kernel, tell, caplog):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(told(vm), SYNCED)
    kernel.calls.clear()
    kernel.fail_at = 1
    await tell(deleted(vm))
    assert "not released" in caplog.text
    assert await ports(netd) == {vm}
    await asyncio.sleep(CLAIM_SECONDS + 1)
    assert await ports(netd) == set()


@in_made_up_time
async def test_it_does_nothing_while_all_ports_are_claimed(netd, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(told(vm), SYNCED)
    assert not asyncio.get_running_loop()._scheduled  # no timer


@in_made_up_time
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


@in_made_up_time
async def test_vms_that_have_not_changed_are_not_told_again_and_are_there_still(netd, tell):
    vm = new_vm_id()
    await attach(netd, vm)
    await tell(told(vm, "web", vmm_pb2.VM_STATE_READY), SYNCED, LOST, SYNCED)
    await asyncio.sleep(CLAIM_SECONDS * 2)
    assert await ports(netd) == {vm}
    assert netd.state.live == {vm}
    await tell(LOST, deleted(vm), SYNCED)
    assert await ports(netd) == set()
    assert netd.state.live == set()


@in_made_up_time
async def test_what_the_present_lacks_after_missed_events_is_no_more(netd, tell):
    vm, other = new_vm_id(), new_vm_id()
    await attach(netd, vm)
    await attach(netd, other)
    ready = vmm_pb2.VM_STATE_READY
    await tell(told(vm, "web", ready), told(other, "db", ready), SYNCED, MISSED)
    assert netd.state.live == {vm, other}  # until the present has been told
    await asyncio.sleep(CLAIM_SECONDS * 2)
    await tell(told(other, "db", ready))
    assert await ports(netd) == {vm, other}
    await tell(SYNCED)
    assert (netd.state.live, netd.state.names) == ({other}, {other: "db"})
    assert netd.view().ports[vm].vm_name == "web"
    await asyncio.sleep(CLAIM_SECONDS * 2)
    assert await ports(netd) == {other}


@in_made_up_time
async def test_a_name_that_cannot_be_stored_is_told_again(netd, kernel, tell, caplog):
    vm = new_vm_id()
    await attach(netd, vm)
    kernel.calls.clear()
    kernel.fail_at = 1
    await tell(told(vm, "web"))
    assert "is not stored" in caplog.text
    await tell(told(vm, "web"))
    assert netd.view().ports[vm].vm_name == "web"
