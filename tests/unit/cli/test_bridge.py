"""Lines of MCP, and the requests that are still owed an answer."""

import asyncio
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexusctl.bridge import Pending, lines


class Chunks:
    def __init__(self, *chunks):
        self._chunks = chunks

    async def chunks(self):
        for chunk in self._chunks:
            yield chunk


async def collected(*chunks, limit=10):
    return [line async for line in lines(Chunks(*chunks), limit)]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], []),
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a", b"b", b"\n", b"c"], [b"ab", b"c"]),
        ([b"\n\n \r\n"], []),
        ([b"0123456789\n"], [b"0123456789"]),
        ([b"0123456789x\nb\n"], [None, b"b"]),
        ([b"01234", b"56789", b"xyz", b"\nb\n"], [None, b"b"]),
        ([b"0123456789", b"x"], [None]),
        ([b"0123456789x", b"y" * 9, b"\n", b"b\n"], [None, b"b"]),
    ],
)
async def test_lines(chunks, expected):
    assert await collected(*chunks) == expected


@given(st.lists(st.binary(max_size=8).filter(lambda b: b.strip() == b and b and b"\n" not in b)))
def test_lines_do_not_depend_on_how_they_come(messages):
    data = b"\n".join(messages)
    single = asyncio.run(collected(*(data[i : i + 1] for i in range(len(data)))))
    assert single == messages == asyncio.run(collected(data))


def message(**fields):
    return json.dumps({"jsonrpc": "2.0"} | fields).encode()


def is_owed(pending):
    waiting = pending.none()
    try:
        waiting.send(None)
    except StopIteration:
        return False
    waiting.close()
    return True


async def test_a_request_is_owed_until_it_is_answered():
    pending = Pending()
    assert not is_owed(pending)
    pending.sent(message(id=1, method="a"))
    pending.sent(message(id="1", method="a"))
    pending.received(message(id=1, result={}))
    assert is_owed(pending)
    pending.received(message(id="1", error={}))
    assert not is_owed(pending)


async def test_what_is_owed_to_nobody():
    pending = Pending()
    pending.sent(message(method="notifications/initialized"))
    pending.sent(message(id=5, result={}))
    pending.sent(b"no json")
    pending.sent(b"[" * 100_000)
    pending.sent(b"[1, null]")
    pending.received(message(method="notifications/progress"))
    assert not is_owed(pending)


async def test_a_request_of_the_server_answers_nothing():
    pending = Pending()
    pending.sent(message(id=1, method="a"))
    pending.received(message(id=1, method="sampling/createMessage"))
    assert is_owed(pending)


async def test_batches():
    pending = Pending()
    pending.sent(b"[" + message(id=1, method="a") + b"," + message(id=2, method="a") + b"]")
    pending.received(b"[" + message(id=1, result=0) + b"," + message(id=2, result=0) + b"]")
    assert not is_owed(pending)


@pytest.mark.parametrize("params", [{"requestId": 1}, {}, None, [], {"requestId": {}}])
async def test_cancellation(params):
    pending = Pending()
    pending.sent(message(id=1, method="a"))
    pending.sent(message(method="notifications/cancelled", params=params))
    assert is_owed(pending) == (params != {"requestId": 1})


async def test_a_big_message_is_read_in_time():
    line = os.urandom(4_000_000).hex().encode()
    chunks = [line[i : i + 65536] for i in range(0, len(line), 65536)]
    async with asyncio.timeout(10):
        assert await collected(*chunks, b"\n", limit=16_000_000) == [line]
