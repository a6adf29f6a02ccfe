"""What the gateway does for the life of VMs: it tells of uses, and asks guests to shut down."""

import asyncio

import pytest

from nexus.gateway.v1 import gateway_pb2 as pb
from nexus.vmm.v1 import vmm_pb2 as vmm

VM = "a" * 13


@pytest.fixture
async def idle(gateway):
    """The gateway, with a VM that has an idle time."""
    gateway.vmm.change(VM, spec=vmm.VmSpec(ttl=vmm.TimeToLive(idle_seconds=10)))
    await gateway.vmm.until(VM, vmm.VM_STATE_READY)
    async with asyncio.timeout(60):
        yield gateway


async def exec_(gateway, path):
    request = pb.ExecRequest(vm="hello", argv=["true"])
    return [event async for event in gateway.stub.Exec(request)]


async def read(gateway, path):
    request = pb.ReadFileRequest(vm="hello", path="/etc/hostname")
    return [part async for part in gateway.stub.ReadFile(request)]


async def write(gateway, path):
    target = pb.FileTarget(vm="hello", path=str(path / "file"))
    return await gateway.stub.WriteFile(iter([pb.WriteFileRequest(target=target)]))


async def delete(gateway, path):
    (path / "file").touch()
    request = pb.DeleteFileRequest(vm="hello", path=str(path / "file"))
    return await gateway.stub.DeleteFile(request)


@pytest.mark.parametrize("use", [exec_, read, write, delete])
async def test_each_use_is_told_and_none_waits_for_that(idle, tmp_path, use):
    idle.vmm.answering.clear()
    assert await use(idle, tmp_path)
    assert await idle.vmm.touches.get() == VM
    idle.vmm.answering.set()


async def test_a_long_command_keeps_its_vm_in_use(idle):
    request = pb.ExecRequest(vm="hello", argv=["sh", "-c", "echo on; sleep 1000"])
    call = idle.stub.Exec(request)
    assert (await call.read()).stdout == b"on\n"
    told = asyncio.get_running_loop().time()
    for _ in range(2):
        assert await idle.vmm.touches.get() == VM
    assert asyncio.get_running_loop().time() - told < 10
    call.cancel()
    assert await idle.vmm.touches.get() == VM


async def test_a_vm_without_an_idle_time_is_not_told_of(gateway, tmp_path):
    await exec_(gateway, tmp_path)
    await read(gateway, tmp_path)
    assert gateway.vmm.touches.empty()


async def test_the_agent_of_a_vm_that_is_being_stopped_ends_it(gateway):
    await gateway.vmm.until(VM, vmm.VM_STATE_READY)
    gateway.vmm.change(VM, stopping=True)
    assert await asyncio.to_thread(gateway.agent.wait, 30) == 0
