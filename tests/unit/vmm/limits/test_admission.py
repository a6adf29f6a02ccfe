"""Budgets and quotas as callers meet them: through the operations, on a host with little room."""

import asyncio
import re
from contextlib import aclosing

import pytest
from vmm_guest import ID
from vmm_life import Crash

from nexus.vmm.v1 import settings_pb2
from nexus_rpc.errors import NexusError, NotFound, ResourceExhausted
from nexus_vmm.calls import Request
from nexus_vmm.operations import work
from nexus_vmm.records import rows
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Condition, Delay, RestartPolicy

NOW = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)
BLUE = (("team", "blue"),)


async def configure(vmm, **values):
    """Set settings; in their names "__" stands for the dot."""
    body = settings_pb2.UpdateSettingsRequest()
    named = {name.replace("__", "."): value for name, value in values.items()}
    return await vmm.settings.update(Request("", "UpdateSettings", body), named, 0)


async def refused(call, reason="NO_CAPACITY"):
    """Return what a refusal tells of its budget."""
    with pytest.raises(ResourceExhausted) as caught:
        await call
    assert caught.value.reason == reason
    return caught.value.metadata


async def until_it_waits(vmm):
    """Return the VM once its reason says that it waits for room."""
    async with asyncio.timeout(5), aclosing(vmm.hub.watch()) as changes:
        async for _, change in changes:
            if "once there is room" in getattr(change, "reason", ""):
                return change
    raise AssertionError


def used(budgets, tag=""):
    return {one.what: one.used for one in budgets if one.tag == tag}


async def test_a_start_without_room_touches_nothing_and_works_once_there_is(host):
    async def life(vmm):
        host.room.memory = 300
        for name in ("one", "two", "three"):
            await vmm.create(name)
        await vmm.start("one")
        two = await vmm.start("two")
        before = vmm.hub.present()
        figures = await refused(vmm.start("three", request_id="r"))
        assert figures == {"what": "memory_mib", "asked": "128", "free": "44", "limit": "300"}
        assert vmm.hub.present() == before == await vmm.store.all()
        assert host.world.processes.keys() == {vm.id for vm in before if vm.state in LIVE}
        # A paused VM keeps its memory, a stopped one does not.
        await vmm.pause("two")
        await refused(vmm.start("three", request_id="r"))
        await vmm.stop("two", grace=0)
        assert (await vmm.start("three", request_id="r")).state is State.RUNNING
        assert (await vmm.start("three", request_id="r")).state is State.RUNNING
        assert used(await vmm.store.budgets()) == {
            "memory_mib": 256,
            "vcpus": 2,
            "disk_mib": 48,
            "vms": 3,
        }
        assert two.id not in host.world.processes

    await host.live(life)


async def test_a_create_without_room_leaves_nothing(host):
    async def life(vmm):
        host.room.disk = 4  # ten times as much may be promised
        await vmm.create("one")
        await vmm.create("two")
        figures = await refused(vmm.create("three", request_id="r"))
        assert figures == {"what": "disk_mib", "asked": "16", "free": "8", "limit": "40"}
        assert len(host.world.disks) == 2
        await vmm.delete("one")
        await vmm.create("three", request_id="r")
        host.room.disk = 1000
        await configure(vmm, capacity__vms="2")
        assert (await refused(vmm.create("four")))["what"] == "vms"
        assert (await vmm.create("three", request_id="r")).name == "three"

    await host.live(life)


async def test_a_disk_grows_as_far_as_there_is_room(host):
    async def life(vmm):
        host.room.disk = 10  # ten times as much may be promised
        await vmm.create("one")
        await vmm.create("two")
        grow = {"fields": ("disk_mib",), "vm": "one"}
        figures = await refused(vmm.update(**grow, disk_mib=85, request_id="r"))
        # Its own disk is no other's: up to 84 it may have.
        assert figures == {"what": "disk_mib", "asked": "85", "free": "84", "limit": "100"}
        assert (await vmm.store.find("one")).revision == 1
        assert (await vmm.update(**grow, disk_mib=84)).spec.disk_mib == 84
        assert used(await vmm.store.budgets())["disk_mib"] == 100
        await refused(vmm.create("three"))
        # What is promised by now may be more than there is: all else may change.
        host.room.disk = 1
        await vmm.update(fields=("memory_mib",), vm="one", memory_mib=256)
        await refused(vmm.update(fields=("disk_mib",), vm="two", disk_mib=17))

    await host.live(life)


async def test_a_disk_grows_as_far_as_the_quota_of_a_tag_lets_it(host):
    async def life(vmm):
        await configure(vmm, quota__tags="team=blue: disk_mib=40, memory_mib=100")
        await vmm.create("one", tags=BLUE)
        await vmm.create("two", tags=BLUE)
        grow = {"fields": ("disk_mib",), "vm": "one", "tags": BLUE}
        figures = await refused(vmm.update(**grow, disk_mib=25), "QUOTA_EXCEEDED")
        assert (figures["asked"], figures["free"], figures["tag"]) == ("25", "24", "team=blue")
        await vmm.update(**grow, disk_mib=24)
        # Without the tag in the same call, its quota does not count.
        untagged = await vmm.update(fields=("disk_mib", "tags"), vm="one", disk_mib=1024)
        assert (untagged.spec.disk_mib, untagged.spec.tags) == (1024, ())

    await host.live(life)


async def test_16_disks_that_grow_at_once_never_pass_the_budget(host):
    async def life(vmm):
        host.room.disk = 16 * 2 + 5
        await configure(vmm, capacity__disk_overcommit="10")
        for number in range(16):
            await vmm.create(f"vm{number}")
        answers = await asyncio.gather(
            *(
                vmm.update(fields=("disk_mib",), vm=f"vm{number}", disk_mib=32)
                for number in range(16)
            ),
            return_exceptions=True,
        )
        refusals = [one for one in answers if isinstance(one, NexusError)]
        assert {one.reason for one in refusals} == {"NO_CAPACITY"}
        assert len(refusals) == 16 - (370 - 16 * 16) // 16

    await host.live(life)


async def test_16_starts_at_once_never_pass_the_budget(host):
    async def life(vmm):
        host.room.memory = 128 * 5
        for number in range(16):
            await vmm.create(f"vm{number}")
        answers = await asyncio.gather(
            *(vmm.start(f"vm{number}") for number in range(16)), return_exceptions=True
        )
        refusals = [one for one in answers if isinstance(one, NexusError)]
        assert {one.reason for one in refusals} == {"NO_CAPACITY"}
        assert (len(refusals), len(host.world.processes)) == (11, 5)

    await host.live(life)


async def test_16_creates_at_once_never_pass_the_budget(host):
    async def life(vmm):
        await configure(vmm, capacity__vms="5")
        answers = await asyncio.gather(
            *(vmm.create(f"vm{number}") for number in range(16)), return_exceptions=True
        )
        refusals = [one for one in answers if isinstance(one, NexusError)]
        assert {one.reason for one in refusals} == {"NO_CAPACITY"}
        assert (len(refusals), len(await vmm.store.all())) == (11, 5)
        assert len(host.world.disks) == 5

    await host.live(life)


async def test_settings_hold_at_once(host):
    async def life(vmm):
        await vmm.create()
        await configure(vmm, capacity__memory_mib="127")
        await refused(vmm.start())
        await configure(vmm, capacity__memory_overcommit="1.01")
        await vmm.start()
        # What is used may be more than a budget is by now: nothing is taken from anyone.
        await configure(vmm, capacity__memory_mib="80")
        await vmm.create("other", memory_mib=80)
        assert (await refused(vmm.start("other")))["free"] == "0"

    await host.live(life)


async def test_a_quota_counts_the_vms_with_its_tag_alone(host):
    async def life(vmm):
        await configure(vmm, quota__tags="team=blue: vms=2, memory_mib=200; team=red: vms=1")
        await vmm.create("one", tags=BLUE)
        await vmm.create("two", tags=(("a", "b"), *BLUE))
        figures = await refused(vmm.create("three", tags=BLUE), "QUOTA_EXCEEDED")
        assert figures == {
            "what": "vms",
            "asked": "1",
            "free": "0",
            "limit": "2",
            "tag": "team=blue",
        }
        await vmm.create("three")
        await vmm.start("three")
        await vmm.start("one")
        assert (await refused(vmm.start("two"), "QUOTA_EXCEEDED"))["free"] == "72"
        budgets = await vmm.store.budgets()
        assert used(budgets, "team=blue") == {"vms": 2, "memory_mib": 128}
        assert used(budgets, "team=red") == {"vms": 0}

    await host.live(life)


async def test_a_tag_with_a_quota_is_refused_where_that_is_used_up(host):
    async def life(vmm):
        await configure(vmm, quota__tags="team=blue: memory_mib=200")
        await vmm.create("one", tags=BLUE)
        await vmm.start("one")
        await vmm.create("two")
        await vmm.start("two")
        update = {"fields": ("tags",), "vm": "two", "tags": BLUE}
        assert (await refused(vmm.update(**update), "QUOTA_EXCEEDED"))["free"] == "72"
        assert (await vmm.store.find("two")).spec.tags == ()
        await vmm.stop("two")
        assert (await vmm.update(**update)).spec.tags == BLUE
        await configure(vmm, quota__tags="team=blue: memory_mib=1")
        assert (await vmm.update(fields=("tags",), vm="one", tags=BLUE)).spec.tags == BLUE
        assert (await vmm.update(fields=("tags",), vm="one")).spec.tags == ()

    await host.live(life)


async def test_a_restart_by_policy_waits_for_room_and_says_so(host, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)

    async def life(vmm):
        await vmm.create(restart=NOW)
        vm = await vmm.start()
        host.room.memory = 100
        host.world.end(vm.id)
        vm = await until_it_waits(vmm)
        assert re.search("once there is room: .* 100 of 100 are free", vm.reason)
        assert (vm.state, vm.restarts.due > 0) == (State.CRASHED, True)
        assert not host.world.processes
        assert vmm.hub.present() == [vm]
        steps = await vmm.store.history(vm)
        host.room.memory = 200
        vm = await vmm.until(vm.id, State.RUNNING)
        assert len(await vmm.store.history(vm)) == len(steps) + 1

    await host.live(life)


async def test_what_waits_for_room_does_so_over_a_restart_of_vmm(host, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)

    async def first(vmm):
        await vmm.create(restart=NOW)
        vm = await vmm.start()
        host.room.memory = 100
        host.world.end(vm.id)
        return await until_it_waits(vmm)

    async def second(vmm):
        assert await vmm.store.find("hello") == vm
        host.room.memory = 200
        await vmm.until(vm.id, State.RUNNING)

    vm = await host.live(first)
    assert await host.live(second) is not Crash


async def test_what_waits_for_room_can_be_stopped_and_deleted(host, monkeypatch):
    monkeypatch.setattr(work, "ROOM_SECONDS", 0.01)

    async def life(vmm):
        await vmm.create(restart=NOW)
        vm = await vmm.start()
        host.room.memory = 100
        host.world.end(vm.id)
        await until_it_waits(vmm)
        await vmm.stop()
        host.room.memory = 1000
        await vmm.delete()
        with pytest.raises(NotFound):
            await vmm.store.find("hello")
        assert not host.world.processes

    await host.live(life)


@pytest.mark.parametrize(
    ("spec", "disk"),
    [
        ("{", 16),
        ('{"tags": ["team", 7]}', 16),
        ('{"disk_mib": 9223372036854775807}', 2**62),
        ('{"disk_mib": -20, "memory_mib": "x"}', 0),
    ],
)
async def test_a_damaged_row_keeps_no_other_vm_from_starting(host, spec, disk):
    async def life(vmm):
        await vmm.create("one", vm_id=ID, tags=BLUE)
        await vmm.create("two", tags=BLUE)
        await configure(vmm, quota__tags="team=blue: vms=2")
        await host.database.write(
            lambda db: db.execute("UPDATE vms SET spec = ? WHERE id = ?", (spec, ID))
        )
        await vmm.start("two")
        figures = {"memory_mib": 128, "vcpus": 1, "disk_mib": disk, "vms": 2}
        assert used(await vmm.store.budgets()) == figures
        await host.database.write(lambda db: rows.delete(db, ID))

    assert await host.live(life) is not Crash


async def test_figures_of_a_thousand_vms(host):
    async def life(vmm):
        await configure(vmm, quota__tags="team=blue: vms=9999")

        def work(db):
            for number in range(1000):
                rows.insert(db, f"id{number}", f"n{number}", vm.spec, 1)

        vm = await vmm.create(tags=BLUE)
        await host.database.write(work)
        budgets = await vmm.store.budgets()
        assert used(budgets)["vms"] == used(budgets, "team=blue")["vms"] == 1001

        def undo(db):
            for number in range(1000):
                rows.delete(db, f"id{number}")

        await host.database.write(undo)

    assert await host.live(life) is not Crash
