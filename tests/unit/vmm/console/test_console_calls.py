"""Consoles over the API: streamed, followed, typed into."""

import asyncio
import os
import shutil

import grpc
import pytest
from vmm_server import everything, refusal, serving

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_vmm.console import consoles
from nexus_vmm.operations.supervisor import Supervisor


@pytest.fixture
async def vmm(short_path, host):
    async with serving(short_path, host) as stub:
        yield stub


@pytest.mark.parametrize(("tail", "size"), [(0, 200_000), (70_000, 70_000)])
async def test_the_console_is_streamed_in_pieces(vmm, tail, size):
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello"))).vm
    text = bytes(range(250)) * 800
    vmm.places.console(vm.id).mkdir(parents=True)
    (vmm.places.console(vm.id) / "log").write_bytes(text)
    request = pb.GetConsoleLogRequest(vm="hello", tail_bytes=tail)
    pieces = [answer.data for answer in await everything(vmm.GetConsoleLog(request))]
    assert b"".join(pieces) == text[-size:]
    assert max(map(len, pieces)) == 64 * 1024


async def test_a_vm_that_never_ran_has_an_empty_console(vmm):
    await vmm.CreateVm(pb.CreateVmRequest(name="hello"))
    assert await everything(vmm.GetConsoleLog(pb.GetConsoleLogRequest(vm="hello"))) == []
    error = await refusal(vmm.GetConsoleLog(pb.GetConsoleLogRequest(vm="nobody")))
    assert error.reason == "VM_NOT_FOUND"


async def test_a_console_is_followed_until_its_vm_is_gone(vmm):
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello"))).vm
    console = vmm.places.console(vm.id)
    console.mkdir(parents=True)
    (console / "log").write_bytes(b"a\nb\n")
    call = vmm.GetConsoleLog(pb.GetConsoleLogRequest(vm="hello", tail_lines=1, follow=True))
    async with asyncio.timeout(20):
        assert (await call.read()).data == b"b\n"
        with (console / "log").open("ab") as log:
            log.write(b"c\n")
        assert (await call.read()).data == b"c\n"
        shutil.rmtree(console)
        assert await call.read() is grpc.aio.EOF


async def test_one_that_gives_up_following_makes_room_for_another(vmm, monkeypatch):
    class Places(dict):
        left = asyncio.Event()

        def __delitem__(self, key):
            super().__delitem__(key)
            self.left.set()

    monkeypatch.setattr(consoles, "FOLLOWERS", 1)
    vmm.consoles._followers = Places()
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello"))).vm
    vmm.places.console(vm.id).mkdir(parents=True)
    (vmm.places.console(vm.id) / "log").write_bytes(b"x")
    request = pb.GetConsoleLogRequest(vm="hello", follow=True)
    async with asyncio.timeout(20):
        for _ in range(3):
            vmm.consoles._followers.left.clear()
            call = vmm.GetConsoleLog(request)
            assert (await call.read()).data == b"x"
            assert (await refusal(vmm.GetConsoleLog(request))).reason == "TOO_MANY_FOLLOWERS"
            call.cancel()
            await vmm.consoles._followers.left.wait()


async def test_typing_into_a_console(vmm, monkeypatch):
    spec = pb.VmSpec(serial_input=True)
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello", spec=spec))).vm
    request = pb.WriteConsoleRequest(vm="hello", data=b"ls\r")
    assert (await refusal(vmm.WriteConsole(request))).reason == "VM_STATE"
    await vmm.StartVm(pb.StartVmRequest(vm="hello"))
    assert (await refusal(vmm.WriteConsole(request))).reason == "VM_STATE"  # no process reads
    vmm.places.run(vm.id).mkdir(parents=True, exist_ok=True)
    os.mkfifo(vmm.places.serial(vm.id))
    guest = os.open(vmm.places.serial(vm.id), os.O_RDWR)
    used = []
    touch = Supervisor.touch

    async def noted(supervisor, ref):
        used.append(ref)
        return await touch(supervisor, ref)

    monkeypatch.setattr(Supervisor, "touch", noted)
    await vmm.WriteConsole(request)
    assert os.read(guest, 100) == b"ls\r"
    os.close(guest)
    assert used == ["hello"]
