"""What sockets tell, as a bounded iterator."""

import asyncio
import socket
from itertools import pairwise

import pytest

from nexus_netd.linux.stream import Stream

SECONDS = 5


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        yield ours, theirs
    ours.close()


def words(data):
    return data.decode().split()


async def first(stream):
    async with asyncio.timeout(SECONDS):
        return await anext(stream)


async def test_what_is_told_comes_in_order(pair):
    ours, theirs = pair
    stream = Stream(10)
    stream.listen(ours, words)
    theirs.send(b"one two")
    theirs.send(b"three")
    assert [await first(stream) for _ in range(3)] == ["one", "two", "three"]
    waiting = asyncio.ensure_future(anext(stream))
    theirs.send(b"four")
    assert await waiting == "four"
    stream.close()


async def test_with_lost_alike_values_that_wait_are_one_and_too_many_are_lost(pair):
    ours, theirs = pair
    stream = Stream(3, lost="lost")
    stream.listen(ours, words)
    theirs.send(b"one one two one")
    assert [await first(stream) for _ in range(2)] == ["one", "two"]
    theirs.send(b"a b c d e")
    assert await first(stream) == "lost"
    stream.close()


async def test_without_lost_each_value_is_told_and_what_is_too_much_is_left_out(pair):
    ours, theirs = pair
    stream = Stream(2)
    stream.listen(ours, words)
    theirs.send(b"one two one three")
    assert sorted([await first(stream) for _ in range(3)]) == ["one", "one", "two"]
    theirs.send(b"four")
    assert await first(stream) == "four"
    stream.close()


async def test_many_datagrams_leave_others_their_turn(pair):
    ours, theirs = pair
    heard = []
    stream = Stream(1_000, rest=0.01)
    stream.listen(ours, lambda data: heard.append(data) or [])
    for _ in range(20):
        theirs.send(b"x")
    turns = []
    async with asyncio.timeout(SECONDS):
        while len(heard) < 20:
            await asyncio.sleep(0)
            turns.append(len(heard))
    assert max(later - now for now, later in pairwise(turns)) <= 8
    stream.close()


async def test_it_ends_when_it_is_closed(pair):
    ours, _ = pair
    stream = Stream(10)
    stream.listen(ours, words)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert [value async for value in stream] == []
