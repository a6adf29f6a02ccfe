"""A hand in the dev host, held over one ssh connection: see `crash_inside`."""

import asyncio
import json
from contextlib import suppress
from itertools import count
from pathlib import Path

from devhost import ROOT

SCRIPT = str(ROOT / "deploy/devhost/devhost.py")
HAND_SECONDS = 90
_SUPPORT = Path(__file__).parent


class Hand:
    """Asks for what is to be done in the dev host."""

    def __init__(self, process):
        self._process = process
        self._numbers = count()
        self._waiting = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def reach(cls):
        """Reach into the dev host, which is up."""
        inside, *texts = [
            (_SUPPORT / f"crash_{name}.py").read_text() for name in ("inside", "look", "strike")
        ]
        argv = ["/usr/bin/python3", SCRIPT, "exec", "python3", "-c", inside, *texts]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        async with asyncio.timeout(HAND_SECONDS):
            assert await process.stdout.readline() == b"ready\n", "the dev host is not reached"
        hand = cls(process)
        await hand.ask("put_guests_behind")
        return hand

    async def ask(self, name, *arguments):
        """Return what a function gives; its own errors go to stderr.

        Raises TimeoutError, ConnectionError where the dev host is gone.
        """
        if not self.holds():
            raise ConnectionError("the dev host is gone")
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._process.stdin.write(json.dumps([number, name, *arguments]).encode() + b"\n")
            return await asyncio.wait_for(self._waiting[number], HAND_SECONDS)
        finally:
            del self._waiting[number]

    def holds(self):
        """Whether the dev host is still there, as far as anyone knows."""
        return not self._reader.done()

    async def close(self):
        """End it, if it is still there."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self):
        async for line in self._process.stdout:
            number, answer = json.loads(line)
            if number in self._waiting:
                self._waiting[number].set_result(answer)
        for waiting in self._waiting.values():
            waiting.set_exception(ConnectionError("the dev host is gone"))
