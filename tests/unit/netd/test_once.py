import asyncio
from contextlib import suppress

import pytest

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.once import Once
from nexus_rpc.errors import AlreadyExists, InvalidArgument, NexusError


@pytest.fixture
def once(database):
    return Once(database)


class Deed:
    """Something that is counted, and ends when it is let."""

    def __init__(self, error=None):
        self.done = 0
        self.error = error
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self):
        self.begun.set()
        await self.may_end.wait()
        self.done += 1
        if self.error:
            raise self.error
        return pb.DetachPortResponse(detached=True)

    def call(self, once, request_id="one", vm_id="a", again=None):
        request = pb.DetachPortRequest(vm_id=vm_id, request_id=request_id)
        return once.call(request, pb.DetachPortResponse, self, again)


async def test_without_an_id_each_call_is_its_own(once):
    deed = Deed()
    for _ in range(2):
        assert (await deed.call(once, "")).detached
    assert deed.done == 2


async def test_a_repeat_gets_the_first_answer(once, database):
    deed = Deed()
    assert (await deed.call(once)).detached
    assert (await deed.call(Once(database))).detached
    assert deed.done == 1


async def test_a_repeat_may_do_something_else(once):
    deed, again = Deed(), Deed()
    await deed.call(once)
    await deed.call(once, again=again)
    assert (deed.done, again.done) == (1, 1)


async def test_a_repeat_while_the_first_is_under_way_waits_for_it(once):
    deed = Deed()
    deed.may_end.clear()
    calls = [asyncio.create_task(deed.call(once)) for _ in range(3)]
    await deed.begun.wait()
    deed.may_end.set()
    assert all(answer.detached for answer in await asyncio.gather(*calls))
    assert deed.done == 1


async def test_a_caller_that_goes_away_does_not_take_the_deed_along(once):
    deed = Deed()
    deed.may_end.clear()
    call = asyncio.create_task(deed.call(once))
    await deed.begun.wait()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call
    deed.may_end.set()
    assert (await deed.call(once)).detached
    assert deed.done == 1


async def test_what_failed_may_be_tried_again(once):
    deed = Deed(NexusError("X", "no"))
    for _ in range(2):
        with pytest.raises(NexusError, match="no"):
            await deed.call(once)
    deed.error = None
    assert (await deed.call(once)).detached
    assert deed.done == 3


async def test_an_id_means_one_request_under_way_or_done(once):
    deed = Deed()
    deed.may_end.clear()
    call = asyncio.create_task(deed.call(once))
    await deed.begun.wait()
    with pytest.raises(AlreadyExists) as caught:
        await deed.call(once, vm_id="b")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    deed.may_end.set()
    await call
    with pytest.raises(AlreadyExists) as caught:
        await deed.call(once, vm_id="b")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert deed.done == 1


@pytest.mark.parametrize("request_id", ["x" * 65, "a\nb"])
async def test_an_id_that_is_none(once, request_id):
    deed = Deed()
    with pytest.raises(InvalidArgument):
        await deed.call(once, request_id)
    assert deed.done == 0
