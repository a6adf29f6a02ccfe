"""The hub: present and changes without a gap, and watchers that fall behind."""

import asyncio

import pytest
import vmm_guest

from nexus_rpc.errors import ResourceExhausted, Unavailable
from nexus_vmm.watch import LIMIT, Gone, Hub, Synced

A = vmm_guest.vm("a" * 13, "a", seq=1)
B = vmm_guest.vm("b" * 13, "b", seq=2)


@pytest.fixture
def hub():
    hub = Hub()
    hub.publish(B)
    hub.publish(A)
    return hub


async def test_the_present_comes_first_in_order_of_creation(hub):
    watch = hub.watch()
    assert await anext(watch) == A
    assert await anext(watch) == B
    assert isinstance(await anext(watch), Synced)
    await watch.aclose()


async def test_no_change_is_lost_between_present_and_changes(hub):
    watch = hub.watch()
    assert await anext(watch) == A
    later = vmm_guest.vm(B.id, "b", seq=2, reason="changed while the present was told")
    hub.publish(later)
    hub.publish(Gone(A.id))
    assert await anext(watch) == B
    assert isinstance(await anext(watch), Synced)
    assert await anext(watch) == later
    assert await anext(watch) == Gone(A.id)
    await watch.aclose()
    assert hub.present() == [later]


async def test_a_watcher_that_falls_behind_is_ended_and_others_are_not(hub):
    slow, quick = hub.watch(), hub.watch()
    for watch in (slow, quick):
        for _ in range(3):
            await anext(watch)
    for number in range(LIMIT + 1):
        hub.publish(vmm_guest.vm(A.id, "a", reason=str(number)))
        assert (await anext(quick)).reason == str(number)
    with pytest.raises(ResourceExhausted) as caught:
        await anext(slow)
    assert caught.value.reason == "WATCH_LAGGED"
    await quick.aclose()


async def test_a_watcher_that_is_just_not_behind_gets_everything(hub):
    watch = hub.watch()
    for _ in range(3):
        await anext(watch)
    for number in range(LIMIT):
        hub.publish(vmm_guest.vm(A.id, "a", reason=str(number)))
    assert [(await anext(watch)).reason for _ in range(LIMIT)] == [str(n) for n in range(LIMIT)]
    await watch.aclose()


async def test_a_watcher_that_leaves_is_forgotten(hub):
    watch = hub.watch()
    await anext(watch)
    await watch.aclose()
    assert not hub._watchers


async def test_close_ends_watches_that_wait_and_those_to_come(hub):
    waiting = hub.watch()
    for _ in range(3):
        await anext(waiting)
    next_one = asyncio.create_task(anext(waiting))
    await asyncio.sleep(0)
    hub.close()
    with pytest.raises(Unavailable, match="watch again"):
        await asyncio.wait_for(next_one, 5)
    late = hub.watch()
    for _ in range(3):
        await anext(late)
    with pytest.raises(Unavailable, match="watch again"):
        await asyncio.wait_for(anext(late), 5)
