"""Stops all VMs when the host goes down: `python -m nexus_vmm.drain [--config FILE]`.

nexus-drain.service runs it as it is stopped. Where that is not for the host's sake, but somebody's
who stops or upgrades the unit, nothing is done.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import closing
from pathlib import Path

import grpc

from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus_rpc.channel import connect
from nexus_rpc.errors import NexusError
from nexus_rpc.settings import SettingsError, load
from nexus_vmm.machine.systemd import SystemdUnits
from nexus_vmm.settings import Settings

_SECONDS = 540.0
"""For all VMs together; less than TimeoutStopSec of nexus-drain.service."""


async def drain(settings: Settings) -> int:
    """Have vmm stop its VMs if the host is going down; return how many it stopped.

    Raises Unavailable (SYSTEMD_UNREACHABLE), and grpc.aio.AioRpcError with vmm's own answer.
    """
    units = await SystemdUnits.open()
    with closing(units):
        if not await units.host_stops():
            return 0
    async with connect(f"unix:{settings.server.runtime_dir / 'vmm.sock'}") as channel:
        stub = vmm_pb2_grpc.VmServiceStub(channel)
        request = vmm_pb2.DrainVmsRequest()
        # vmm may be on its way back from a crash just now.
        answer = await stub.DrainVms(request, timeout=_SECONDS, wait_for_ready=True)
    return int(answer.stopped)


def main() -> int:
    """Stop what runs if the host is going down. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="nexus_vmm.drain")
    parser.add_argument("--config", type=Path, default=Path("/etc/nexus/vmm.toml"), metavar="FILE")
    try:
        stopped = asyncio.run(drain(load(Settings, parser.parse_args().config)))
    except (SettingsError, NexusError) as error:
        sys.stderr.write(f"VMs cannot be stopped: {error}\n")
        return 1
    except grpc.aio.AioRpcError as error:
        sys.stderr.write(f"VMs cannot be stopped: {error.details()}\n")
        return 1
    sys.stderr.write(f"stopped {stopped} VMs\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
