"""The hub: present and changes without a gap, from any revision, however slow the watcher."""

import asyncio
import random

import pytest
import vmm_guest

from nexus_rpc.errors import Unavailable
from nexus_vmm.records import watch as watch_module
from nexus_vmm.records.changes import Gone, Log
from nexus_vmm.records.watch import RECENT, Hub, Missed, Synced, Told

A = vmm_guest.vm("a" * 13, "a", seq=1, change=12)
B = vmm_guest.vm("b" * 13, "b", seq=2, change=11)


@pytest.fixture
def hub():
    hub = Hub()
    hub.load([A, B], Log(last=12, forgotten=5, gone=(Gone("c" * 13, 10),)))
    return hub


def changed(vm, revision, reason="changed"):
    return vmm_guest.vm(vm.id, vm.name, seq=vm.seq, change=revision, reason=reason)


async def take(watch, count):
    return [await asyncio.wait_for(anext(watch), 5) for _ in range(count)]


async def caught_up(watch):
    """Return what a watch tells up to and with `Synced`, as (revision, what), and close it."""
    told = []
    async for revision, what in watch:
        told.append((revision, what))
        if isinstance(what, Synced):
            break
    await watch.aclose()
    return told


async def test_the_present_comes_first_in_order_of_creation(hub):
    watch = hub.watch()
    assert await take(watch, 2) == [(0, A), (0, B)]
    ((revision, mark),) = await take(watch, 1)
    assert (revision, isinstance(mark, Synced)) == (12, True)
    await watch.aclose()


async def test_no_change_is_lost_between_present_and_changes(hub):
    watch = hub.watch()
    assert await take(watch, 1) == [(0, A)]
    later = changed(B, 13)
    hub.publish(later)
    hub.publish(Gone(A.id, 14))
    told = await take(watch, 4)
    # The present was taken when the watch began, and its revision with it.
    assert told[0] == (0, B)
    assert told[1].revision == 12
    assert told[2:] == [(13, later), (14, Gone(A.id))]
    await watch.aclose()
    assert hub.present() == [later]


async def test_a_watch_carries_on_after_a_revision(hub):
    assert (await caught_up(hub.watch(12)))[0][0] == 12
    told = await caught_up(hub.watch(9))
    assert told[:-1] == [(10, Gone("c" * 13)), (11, B), (12, A)]
    later = [changed(A, 13, "one"), changed(A, 14, "two")]
    for change in later:
        hub.publish(change)
    # What happened while this hub lived is told one by one, what it found stored as it is now.
    assert (await caught_up(hub.watch(12)))[:-1] == [(13, later[0]), (14, later[1])]
    assert (await caught_up(hub.watch(10)))[:-1] == [(11, B), (14, later[1])]


@pytest.mark.parametrize("revision", [1, 4, 13, 2**64 - 1])
async def test_a_revision_that_is_forgotten_or_not_known_is_missed(hub, revision):
    told = await caught_up(hub.watch(revision))
    assert (told[0][0], isinstance(told[0][1], Missed)) == (0, True)
    assert told[1:-1] == [(0, A), (0, B)]
    assert told[-1][0] == 12


async def test_the_oldest_revision_that_is_known_is_not_missed(hub):
    assert not isinstance((await caught_up(hub.watch(5)))[0][1], Missed)


async def test_a_watcher_that_keeps_up_sees_each_change(hub):
    watch = hub.watch()
    await take(watch, 3)
    for number in range(13, 13 + 3 * RECENT):
        change = changed(A, number)
        hub.publish(change)
        assert (await take(watch, 1))[0].what is change
    await watch.aclose()


async def test_a_watcher_that_is_just_not_behind_sees_each_change(hub):
    watch = hub.watch()
    await take(watch, 3)
    for number in range(13, 13 + RECENT):
        hub.publish(changed(A, number))
    assert [told.revision for told in await take(watch, RECENT)] == [*range(13, 13 + RECENT)]
    await watch.aclose()


async def test_a_watcher_that_is_further_behind_is_told_what_is_now(hub):
    slow, quick = hub.watch(), hub.watch()
    await take(slow, 3)
    await take(quick, 3)
    hub.publish(Gone(B.id, 13))
    last = 14 + 2 * RECENT
    for number in range(14, last):
        hub.publish(changed(A, number))
        if number % 100 == 0:
            await take(quick, 50)
    assert await take(slow, 2) == [(13, Gone(B.id)), (last - 1, changed(A, last - 1))]
    hub.publish(changed(A, last))
    assert (await take(slow, 1))[0].revision == last
    await slow.aclose()
    await quick.aclose()


async def test_deletions_are_forgotten_beyond_a_number(hub, monkeypatch):
    monkeypatch.setattr(watch_module, "KEPT", 3)
    watch = hub.watch()
    await take(watch, 3)
    for number in range(13, 13 + RECENT + 1):
        hub.publish(Gone(f"{number}", number))
    told = await take(watch, 4)
    assert isinstance(told[0].what, Missed)
    assert [one.what for one in told[1:3]] == [A, B]
    assert told[3].revision == 13 + RECENT
    assert len(hub._gone) == 3
    await watch.aclose()


async def test_an_id_that_is_used_again_is_no_deletion(hub):
    hub.publish(Gone(B.id, 13))
    again = changed(B, 14)
    hub.publish(again)
    hub.load([A, again], Log(14, 5, ()))
    assert (await caught_up(hub.watch(12)))[:-1] == [(14, again)]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_a_watcher_ends_up_with_the_present(seed, monkeypatch):
    dice = random.Random(seed)
    monkeypatch.setattr(watch_module, "RECENT", dice.choice([1, 4, 16]))
    monkeypatch.setattr(watch_module, "KEPT", dice.choice([1, 3, 100]))
    hub, known, last = Hub(), {}, 0
    hub.load([], Log(1, 1, ()))
    watch = hub.watch()
    for revision in range(2, 300):
        vm_id = f"vm{dice.randrange(8)}"
        if hub.get(vm_id) and dice.random() < 0.5:
            hub.publish(Gone(vm_id, revision))
        else:
            hub.publish(vmm_guest.vm(vm_id, vm_id, seq=revision, change=revision))
        if dice.random() < 0.1:
            await watch.aclose()
            watch = hub.watch(last)
            known = known if last else {}
        while dice.random() < 0.5 and last != revision:
            last = follow(known, last, await asyncio.wait_for(anext(watch), 5))
    await watch.aclose()
    known = known if last else {}
    for told in await caught_up(hub.watch(last)):
        last = follow(known, last, Told(*told))
    assert known == {vm.id: vm for vm in hub.present()}
    assert last == 299


def follow(known, last, told):
    """Apply what was told to what is known; return the revision to carry on after."""
    match told.what:
        case Missed():
            known.clear()
            return 0
        case Synced():
            pass
        case Gone(id=vm_id):
            known.pop(vm_id, None)
        case vm:
            known[vm.id] = vm
    return told.revision or last


async def test_close_ends_watches_that_wait_and_those_to_come(hub):
    waiting = hub.watch()
    await take(waiting, 3)
    next_one = asyncio.create_task(anext(waiting))
    await asyncio.sleep(0)
    hub.close()
    with pytest.raises(Unavailable, match="watch again"):
        await asyncio.wait_for(next_one, 5)
    late = hub.watch()
    await take(late, 3)
    with pytest.raises(Unavailable, match="watch again"):
        await asyncio.wait_for(anext(late), 5)
