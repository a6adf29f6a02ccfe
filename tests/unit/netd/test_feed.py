import asyncio
from contextlib import ExitStack

import pytest

from nexus_netd.feed import MOST, Feed, Happening, Missed
from nexus_rpc.errors import ResourceExhausted


async def take(watcher, number):
    async with asyncio.timeout(5):
        return [await anext(watcher) for _ in range(number)]


def details(items):
    return [item.count if isinstance(item, Missed) else item.details for item in items]


async def test_watchers_are_told_from_when_they_watch_to_when_they_leave():
    feed = Feed(now=lambda: 12.5)
    feed.tell("attached", "a", "default", "before")
    with feed.watch() as watcher:
        feed.tell("attached", "a", "default", "on 10.0.0.2")
        assert await take(watcher, 1) == [
            Happening(12.5, "attached", "a", "default", "on 10.0.0.2")
        ]
    feed.tell("detached", "a", "default", "after")
    watcher.close()
    assert [item async for item in watcher] == []


async def test_a_watcher_that_waits_is_woken():
    feed = Feed()
    with feed.watch() as watcher:
        waiting = asyncio.create_task(take(watcher, 1))
        await asyncio.sleep(0)
        feed.tell("repaired", "", "default", "tables")
        assert details(await waiting) == ["tables"]


async def test_a_watcher_of_one_vm_is_told_of_no_other():
    feed = Feed()
    with feed.watch("a") as one, feed.watch() as every:
        for vm in ("a", "b", ""):
            feed.tell("changed", vm, "default", vm)
        feed.close()
        assert details([item async for item in one]) == ["a"]
        assert details([item async for item in every]) == ["a", "b", ""]


async def test_who_is_slow_learns_how_many_it_lost_and_where():
    feed = Feed(behind=3)
    with feed.watch() as slow, feed.watch() as quick:
        for number in range(5):
            feed.tell("changed", "", "default", str(number))
            assert details(await take(quick, 1)) == [str(number)]
        assert details(await take(slow, 1)) == ["0"]
        feed.tell("changed", "", "default", "5")
        feed.close()
        assert details([item async for item in slow]) == ["1", "2", 2, "5"]


async def test_what_was_lost_is_told_though_nothing_follows():
    feed = Feed(behind=1)
    with feed.watch() as watcher:
        for number in range(4):
            feed.tell("changed", "", "default", str(number))
        assert details(await take(watcher, 2)) == ["0", 3]


async def test_memory_is_bounded_for_a_watcher_that_never_takes():
    feed = Feed(behind=10)
    with feed.watch() as watcher:
        for _ in range(10_000):
            feed.tell("changed", "", "default", "")
        feed.close()
        taken = [item async for item in watcher]
    assert len(taken) == 11
    assert taken[-1] == Missed(9_990)


async def test_closing_ends_all_watching_of_now_and_later():
    feed = Feed()
    with feed.watch() as watcher:
        feed.close()
        assert [item async for item in watcher] == []
    with feed.watch() as late:
        assert [item async for item in late] == []


def test_watchers_are_bounded_and_one_that_ends_makes_room():
    feed = Feed()
    with ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(feed.watch())
        with pytest.raises(ResourceExhausted, match="256 are watching"), feed.watch():
            pass
    with feed.watch():
        pass
