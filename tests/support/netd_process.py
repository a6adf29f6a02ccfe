"""netd as a process of its own, in the network namespace of the test."""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from notifications import Notifications

from nexus.netd.v1 import netd_pb2_grpc
from nexus_rpc.channel import connect

SECONDS = 30


@dataclass
class NetdProcess:
    """A running netd: its process, a stub, and the directory of its store and sockets."""

    process: asyncio.subprocess.Process
    stub: netd_pb2_grpc.NetworkServiceStub
    directory: Path


def configure(directory, **changes):
    """Write the settings of a netd that keeps everything in `directory`."""
    settings = {
        "subnet": "172.16.0.0/12",
        "state_dir": str(directory),
        "vmm": f"unix:{directory}/vmm.sock",
        **changes,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["[server]", f'runtime_dir = "{directory}"']
    (directory / "netd.toml").write_text("\n".join(lines) + "\n")


@asynccontextmanager
async def running(directory, *launcher):
    """Run netd with the settings in `directory`, from when it is ready to the end of the block."""
    with Notifications(directory / "notify") as notifications:
        with (directory / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *launcher,
                sys.executable,
                "-m",
                "nexus_netd",
                "--config",
                directory / "netd.toml",
                env=os.environ | {"NOTIFY_SOCKET": str(notifications.path)},
                stderr=log,
            )
        try:
            await _until_ready(process, notifications, directory / "log")
            async with connect(f"unix:{directory}/netd.sock") as channel:
                # gRPC backs off for all channels to an address where one was refused before.
                async with asyncio.timeout(SECONDS):
                    await channel.channel_ready()
                yield NetdProcess(process, netd_pb2_grpc.NetworkServiceStub(channel), directory)
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(SECONDS):
                await process.wait()


async def _until_ready(process, notifications, log):
    try:
        await notifications.until("READY=1", process, SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {log.read_text()}") from None


async def refused(call):
    """Return the status of a call that must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was not refused")
