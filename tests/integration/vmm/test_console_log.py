"""The console log with the real writer: floods over boots, read while they are written."""

import asyncio
import contextlib
import itertools

import pytest

from nexus_launch.console import ARGUMENTS, ROTATELOGS
from nexus_vmm.console.follower import Follower
from nexus_vmm.console.pieces import put_aside
from nexus_vmm.console.reader import LIMIT, Reader, read_console

SECONDS = 60
END = b"the end\n"


@pytest.fixture
def log(tmp_path):
    directory = tmp_path / "console"
    directory.mkdir()
    return directory


@contextlib.asynccontextmanager
async def writer(log):
    """Run a boot's log writer; yields what writes to it, and waits until it has written all."""
    put_aside(log)
    process = await asyncio.create_subprocess_exec(
        ROTATELOGS, *ARGUMENTS, stdin=asyncio.subprocess.PIPE, cwd=log
    )
    try:
        async with asyncio.timeout(SECONDS):
            yield process.stdin
            process.stdin.close()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def flood(pipe, numbers):
    """Write numbered lines."""
    for start in numbers[::100]:
        last = min(start + 100, numbers.stop)
        pipe.write(b"".join(b"%06d\n" % number for number in range(start, last)))
        await pipe.drain()


async def test_the_log_is_bounded_and_ends_with_what_was_printed_last(log):
    for boot in range(3):
        async with writer(log) as pipe:
            await flood(pipe, range(boot * 150_000, (boot + 1) * 150_000))
        assert sum(path.stat().st_size for path in log.iterdir()) <= LIMIT
    numbers = [int(line) for line in read_console(log).splitlines() if len(line) == 6]
    assert numbers[-1] == 449_999
    assert len(numbers) > 60_000
    # In order; of each boot the end is there, and the beginning may be missing.
    steps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    assert min(steps) == 1
    assert len([step for step in steps if step != 1]) <= 2


async def test_a_follower_gets_each_byte_once_over_boots(log):
    follower = Follower(Reader(log))
    expected = b"".join(b"%06d\n" % number for number in range(60_000)) + END
    got = bytearray()

    async def follow():
        async with contextlib.aclosing(follower.chunks()) as chunks:
            async for chunk in chunks:
                assert chunk.dropped == 0
                got.extend(chunk.data)
                if got.endswith(END):
                    return

    following = asyncio.create_task(follow())
    for boot in range(3):
        async with writer(log) as pipe:
            for start in range(boot * 20_000, (boot + 1) * 20_000, 1000):
                await flood(pipe, range(start, start + 1000))
                follower.stir()
                await asyncio.sleep(0)
            if boot == 2:
                pipe.write(END)
    async with asyncio.timeout(SECONDS):
        await following
    assert bytes(got) == expected
