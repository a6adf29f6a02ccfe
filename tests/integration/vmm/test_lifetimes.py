"""Times to live and the host's shutdown, with vmm as a process and the client of the latter."""

import asyncio
import os
import sys
import time

import pytest
from vmm_process import SECONDS, hosting

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.errors import Unavailable


@pytest.fixture
async def service(short_path):
    async with hosting(short_path) as service:
        await service.start()
        yield service


async def drain(service):
    """Be nexus-drain.service as it is stopped; return what it says."""
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nexus_vmm.drain",
        "--config",
        service.config,
        env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": service.address},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        _, said = await client.communicate()
    assert client.returncode == 0, said
    return said.decode()


async def test_an_idle_vm_ends_and_one_in_use_does_not(service):
    ttl = pb.TimeToLive(idle_seconds=10, action=pb.EXPIRE_ACTION_DELETE)
    for name in ("idle", "used"):
        await service.call("CreateVm", name=name, spec=pb.VmSpec(ttl=ttl))
        vm = (await service.call("StartVm", vm=name)).vm
        assert 8 < vm.expire_time.seconds - time.time() <= 10
    end = time.monotonic() + 12
    while time.monotonic() < end:
        touched = await service.call("TouchVm", vm="used")
        assert touched.expire_time.seconds - time.time() > 8
        await asyncio.sleep(1)
    assert [vm.name for vm in await service.check()] == ["used"]


async def test_at_the_hosts_shutdown_vms_are_stopped_and_at_no_other_time(service):
    for name in ("a", "b"):
        await service.call("CreateVm", name=name)
        await service.call("StartVm", vm=name)
    assert await drain(service) == "stopped 0 VMs\n"
    assert len(service.model.processes) == 2
    service.systemd.state = "stopping"
    assert await drain(service) == "stopped 2 VMs\n"
    assert [vm.state for vm in await service.check()] == [pb.VM_STATE_STOPPED] * 2
    with pytest.raises(Unavailable) as caught:
        await service.call("StartVm", vm="a")
    assert caught.value.reason == "STOPPING"
