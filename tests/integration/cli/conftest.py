"""nexusctl as a process, against the fakes of the three services on unix sockets."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass

import pytest
from fake_services import Fakes, serve

SECONDS = 30


@dataclass
class Done:
    code: int
    out: bytes
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Nexusctl:
    """Runs nexusctl in an environment of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "USER": "tester",
            "NEXUS_ENDPOINT": f"unix:{directory}",
        }

    async def start(self, *arguments, stdin=asyncio.subprocess.DEVNULL, **options):
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "nexusctl",
            *arguments,
            stdin=stdin,
            stdout=options.pop("stdout", asyncio.subprocess.PIPE),
            stderr=options.pop("stderr", asyncio.subprocess.PIPE),
            env=self.environment | options.pop("env", {}),
            **options,
        )

    async def __call__(self, *arguments, stdin=None, **options):
        piped = asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        process = await self.start(*arguments, stdin=piped, **options)
        return await self.end(process, stdin)

    async def end(self, process, stdin=None):
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate(stdin)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Done(process.returncode, out, (err or b"").decode())


@pytest.fixture
def fakes():
    return Fakes()


@pytest.fixture
async def served(tmp_path, fakes):
    def listen(name, server):
        (tmp_path / name).mkdir()
        server.add_insecure_port(f"unix:{tmp_path}/{name}/{name}.sock")

    async with serve(fakes, listen) as served:
        yield served


@pytest.fixture
def nexusctl(tmp_path, served):
    return Nexusctl(tmp_path)
