"""Following a console: a caller who keeps up, one who does not, and the ends."""

import asyncio
import contextlib
import shutil

import pytest
from vmm_ring import Ring

from nexus_rpc.errors import Unavailable
from nexus_vmm.console import follower as module
from nexus_vmm.console.follower import BACKLOG, CHUNK, Backlog, Chunk, Follower
from nexus_vmm.console.reader import Reader


@pytest.fixture
def ring(tmp_path):
    directory = tmp_path / "console"
    directory.mkdir()
    return Ring(directory)


@pytest.fixture(autouse=True)
async def bound():
    async with asyncio.timeout(20):
        yield


@contextlib.asynccontextmanager
async def following(ring, *tail):
    follower = Follower(Reader(ring.directory))
    async with contextlib.aclosing(follower.chunks(*tail)) as chunks:
        yield follower, chunks


async def text(chunks, count):
    """Return the next `count` bytes, of which none may be missing."""
    got = b""
    while len(got) < count:
        chunk = await anext(chunks)
        assert chunk.dropped == 0
        got += chunk.data
    return got


async def test_what_is_there_comes_first_and_then_what_is_printed(ring):
    ring.print(b"a\nb\n")
    async with following(ring, 0, 1) as (_, chunks):
        assert await text(chunks, 2) == b"b\n"
        for number in range(20):
            ring.print(b"%02d" % number)
            assert await text(chunks, 2) == b"%02d" % number


async def test_a_chunk_has_at_most_its_bytes(ring):
    ring.print(b"x" * (CHUNK + 1))
    async with following(ring) as (_, chunks):
        assert [len((await anext(chunks)).data) for _ in range(2)] == [CHUNK, 1]
        ring.print(b"y" * (CHUNK + 1))
        assert [len((await anext(chunks)).data) for _ in range(2)] == [CHUNK, 1]


async def test_it_ends_when_the_log_is_removed(ring):
    ring.print(b"text")
    async with following(ring) as (_, chunks):
        assert await text(chunks, 4) == b"text"
        shutil.rmtree(ring.directory)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
    async with following(ring) as (_, chunks):
        assert [chunk async for chunk in chunks] == []


async def test_a_stop_ends_it_at_once(ring):
    async with following(ring) as (follower, chunks):
        waiting = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0)
        follower.stop()
        with pytest.raises(Unavailable) as caught:
            await waiting
        assert caught.value.reason == "STOPPING"


async def test_an_error_of_the_disk_is_not_taken_for_the_end(ring, monkeypatch):
    async with following(ring) as (_, chunks):
        waiting = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0)
        monkeypatch.setattr(Reader, "more", lambda _: ring.directory.read_bytes())
        with pytest.raises(IsADirectoryError):
            await waiting


async def test_it_looks_rarely_while_all_is_quiet_and_at_once_when_stirred(ring, monkeypatch):
    looks = asyncio.Queue()
    more = Reader.more
    loop = asyncio.get_running_loop()

    def noted(reader):
        loop.call_soon_threadsafe(looks.put_nowait, loop.time())
        return more(reader)

    monkeypatch.setattr(Reader, "more", noted)
    monkeypatch.setattr(module, "_RARELY", 1000.0)
    monkeypatch.setattr(module, "_SLOWER", 1_000_000.0)
    async with following(ring) as (follower, chunks):
        waiting = asyncio.create_task(anext(chunks))
        for _ in range(3):  # the first, the second, and the one after the shortest pause
            await looks.get()
        ring.print(b"echo")
        follower.stir()
        assert (await waiting).data == b"echo"


async def test_leaving_early_leaves_no_task(ring):
    before = asyncio.all_tasks()
    async with following(ring) as (_, chunks):
        ring.print(b"a")
        await text(chunks, 1)
    assert asyncio.all_tasks() == before


async def test_a_slow_caller_gets_the_newest_and_is_told_what_is_missing():
    backlog = Backlog()
    for number in range(6):
        backlog.put(bytes([number]) * CHUNK, 0)
    kept = BACKLOG // CHUNK
    assert await backlog.take() == Chunk(b"\2" * CHUNK, 2 * CHUNK)
    for number in range(3, 2 + kept):
        assert await backlog.take() == Chunk(bytes([number]) * CHUNK, 0)


async def test_drops_of_several_times_add_up():
    backlog = Backlog()
    backlog.put(b"a" * 10, 5)
    for _ in range(2):
        backlog.put(b"b" * BACKLOG, 0)
    assert (await backlog.take()).dropped == 5 + 10 + BACKLOG


async def test_small_pieces_are_held_as_one():
    backlog = Backlog()
    for letter in b"abc":
        backlog.put(bytes([letter]), 0)
    backlog.put(b"", 3)
    backlog.put(b"d", 2)
    backlog.put(b"e", 0)
    backlog.end()
    assert await backlog.take() == Chunk(b"abc", 0)
    assert await backlog.take() == Chunk(b"de", 5)
    assert await backlog.take() is None
