"""Starts netd within a tenth of a second, to be killed at a chosen point: the driver's side.

See `dying_netd`, which is the other side.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from kill_fuse import Fuse
from netd_process import configure
from notifications import Notifications

from nexus.netd.v1 import netd_pb2_grpc
from nexus_rpc.channel import connect

PROGRAM = Path(__file__).with_name("dying_netd.py")
SECONDS = 20


class Died(Exception):
    """netd was killed by its fuse before it was ready."""


class Template:
    """A process that forks netds, one at a time. Use `template()`."""

    def __init__(self, control, process):
        self._control = control
        self.process = process

    async def fork(self, request, *descriptors):
        """Fork a netd; return its pid."""
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        async with asyncio.timeout(SECONDS):
            return (await self._receive())["pid"]

    async def end(self):
        """Return what the netd ended with; a negative number is a signal's."""
        return (await self._receive())["ended"]

    async def _receive(self):
        data = await asyncio.get_running_loop().sock_recv(self._control, 4096)
        assert data, "the template ended"
        return json.loads(data)


@asynccontextmanager
async def template(log):
    """Run a template for the time of the block; netd's imports are done when the first one is."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with ours:
        with theirs, log.open("ab") as stderr:
            number = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                sys.executable, PROGRAM, str(number), pass_fds=[number], stderr=stderr
            )
        try:
            yield Template(ours, process)
        finally:
            ours.close()  # which ends it
            async with asyncio.timeout(SECONDS):
                await process.wait()


class MortalNetd:
    """A netd in `directory` and in the namespace `descriptor`, started over and over again."""

    def __init__(self, template, directory, descriptor, **settings):
        self._template = template
        self._directory = directory
        self._descriptor = descriptor
        self._settings = settings
        self.fuse, self._shared = Fuse.new()
        self._starts = 0
        self._process = None

    @property
    def log(self):
        return self._directory / "log"

    def close(self):
        os.close(self._shared)

    @asynccontextmanager
    async def run(self):
        """Start it; the stub, once it is ready. Raises Died. At the end it is killed."""
        self._starts += 1
        # A directory of its own: gRPC backs off from a socket that refused it before.
        run = self._directory / f"run{self._starts}"
        run.mkdir()
        configure(run, state_dir=str(self._directory), vmm=f"unix:{run}/vmm.sock", **self._settings)
        with Notifications(run / "notify") as notifications:
            request = {name: str(run / name) for name in ("notify",)}
            request |= {"config": str(run / "netd.toml"), "log": str(self.log)}
            self._process = _Process(
                self._template, await self._template.fork(request, self._descriptor, self._shared)
            )
            try:
                await self._until_ready(notifications)
                async with connect(f"unix:{run}/netd.sock") as channel:
                    yield netd_pb2_grpc.NetworkServiceStub(channel)
            finally:
                await self._process.kill()

    async def death(self):
        """Wait until the fuse has killed it."""
        async with asyncio.timeout(SECONDS):
            assert await self._process.wait() == -signal.SIGKILL, self._words()

    async def _until_ready(self, notifications):
        try:
            await notifications.until("READY=1", self._process, SECONDS)
        except AssertionError:
            if self._process.returncode == -signal.SIGKILL and self.fuse.blown:
                raise Died from None
            raise AssertionError(f"netd ended by itself: {self._words()}") from None

    def _words(self):
        return "\n".join(self.log.read_text().splitlines()[-20:])


class _Process:
    """A netd that the template has forked."""

    def __init__(self, template, pid):
        self._pid = pid
        self._end = asyncio.ensure_future(template.end())
        self.returncode = None

    async def wait(self):
        self.returncode = await asyncio.shield(self._end)
        return self.returncode

    async def kill(self):
        if not self._end.done():
            os.kill(self._pid, signal.SIGKILL)
        await self.wait()
