"""Operations under way: callers that hang up, failures, and the end of the service."""

import asyncio
import gc

import pytest

from nexus_rpc.errors import NotFound, Unavailable
from nexus_vmm.operations.work import Work


async def test_a_result_and_an_error_reach_the_caller():
    async def succeed():
        return 7

    async def fail(error):
        raise error

    async with asyncio.TaskGroup() as tasks:
        work = Work(tasks)
        assert await work.run(succeed()) == 7
        for error in (NotFound("X", "not found"), ValueError("a defect")):
            with pytest.raises(type(error)):
                await work.run(fail(error))


@pytest.mark.parametrize("error", [None, NotFound("X", "not found")])
async def test_an_operation_outlives_its_caller(error):
    started, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def operation():
        started.set()
        await go_on.wait()
        ended.set()
        if error:
            raise error

    async with asyncio.TaskGroup() as tasks:
        caller = asyncio.create_task(Work(tasks).run(operation()))
        await started.wait()
        caller.cancel()
        await asyncio.wait({caller})
        go_on.set()
    assert ended.is_set()


async def test_the_end_of_the_service_ends_operations_and_their_callers():
    async def endless():
        await asyncio.Event().wait()

    made = asyncio.get_running_loop().create_future()

    async def service():
        async with asyncio.TaskGroup() as tasks:
            made.set_result(Work(tasks))
            await endless()

    serving = asyncio.create_task(service())
    work = await made
    caller = asyncio.create_task(work.run(endless()))
    await asyncio.sleep(0)
    serving.cancel()
    await asyncio.wait({serving, caller})
    assert caller.cancelled()
    with pytest.raises(Unavailable) as caught:
        await work.run(endless())
    assert caught.value.reason == "STOPPING"


async def test_a_lock_lives_as_long_as_someone_needs_it():
    async with asyncio.TaskGroup() as tasks:
        work = Work(tasks)
        async with work.lock("a"):
            assert work.lock("a").locked()
            assert not work.lock("b").locked()
        gc.collect()
        assert not work._locks
