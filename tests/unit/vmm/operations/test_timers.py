"""Wake-ups: one for each VM."""

import asyncio

from nexus_vmm.operations.timers import Timers


async def test_each_vm_has_one_wake_up_of_its_own():
    woken = asyncio.Queue()
    timers = Timers(lambda vm_id, due: woken.put_nowait((vm_id, due)))
    timers.set("slow", 1, 3600)
    timers.set("a", 2, 3600)
    timers.set("a", 3, 0)
    timers.set("b", 4, 0.001)
    async with asyncio.timeout(5):
        assert [await woken.get() for _ in range(2)] == [("a", 3), ("b", 4)]
    assert timers._handles.keys() == {"slow"}
    timers.close()
    assert not timers._handles


async def test_what_is_cancelled_wakes_nobody():
    woken = asyncio.Queue()
    timers = Timers(lambda vm_id, due: woken.put_nowait(vm_id))
    timers.set("a", 1, 0)
    timers.set("b", 1, 0)
    timers.cancel("a")
    timers.cancel("never set")
    async with asyncio.timeout(5):
        assert await woken.get() == "b"
    assert woken.empty()
