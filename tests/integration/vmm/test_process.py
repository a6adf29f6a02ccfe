"""vmm as a process: real sockets, database, directories and message bus; kill -9 at any moment.

Only systemd and Firecracker are stand-ins; the units' processes are real, and outlive vmm.
"""

import asyncio
import contextlib
import json
import random
import signal
import time
from pathlib import Path

import grpc
import pytest
from vmm_process import LIVE, SECONDS, hosting

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_rpc.errors import FailedPrecondition, NexusError, NotFound, from_rpc_error
from nexus_rpc.ids import vm_uid
from nexus_vmm.machine.firecracker import dial


@pytest.fixture
async def service(short_path):
    async with hosting(short_path) as service:
        await service.start()
        yield service


async def test_the_life_of_a_vm(service):
    await service.call("CreateVm", name="hello")
    vm = (await service.call("StartVm", vm="hello")).vm
    assert vm.state == pb.VM_STATE_RUNNING
    assert service.model.units[vm.id].invocation == vm.boot
    await service.check()
    await service.call("StopVm", vm="hello")
    await service.check()
    await service.call("DeleteVm", vm="hello")
    assert await service.check() == []


async def test_a_paused_vm_is_adopted_as_paused(service):
    await service.call("CreateVm", name="hello")
    await service.call("StartVm", vm="hello")
    paused = (await service.call("PauseVm", vm="hello")).vm
    await service.kill()
    await service.start()
    assert await service.check() == [paused]
    assert (await service.call("ResumeVm", vm="hello")).vm.state == pb.VM_STATE_RUNNING
    await service.call("PauseVm", vm="hello")
    await service.call("StopVm", vm="hello")
    await service.check()


async def test_a_kill_leaves_vms_running_and_they_are_adopted(service):
    for name in ("a", "b", "c"):
        await service.call("CreateVm", name=name)
        await service.call("StartVm", vm=name)
    before = await service.vms()
    assert await service.kill() == -signal.SIGKILL
    dying = before[1].id
    service.model.processes[dying].end(-signal.SIGKILL)
    await service.model.gone(dying)
    await service.start()
    after = await service.check()
    assert [after[0], after[2]] == [before[0], before[2]]
    assert (after[1].state, "SIGKILL" in after[1].state_reason) == (pb.VM_STATE_CRASHED, True)
    # Adopted also means that its end is noticed.
    service.model.processes[before[2].id].end(-signal.SIGSEGV)
    assert "SIGSEGV" in (await service.until("c", pb.VM_STATE_CRASHED)).state_reason
    await service.call("StopVm", vm="a")


async def test_a_guest_that_shut_down_while_vmm_was_away_is_not_started_again(service):
    restart = pb.RestartPolicy(condition=pb.RESTART_CONDITION_ON_FAILURE)
    for name in ("well", "badly"):
        await service.call("CreateVm", name=name, spec=pb.VmSpec(restart=restart))
        await service.call("StartVm", vm=name)
    well, badly = (vm.id for vm in await service.vms())
    await service.kill()
    with contextlib.closing(await dial(service.places.api(well), vm_uid(well))) as api:
        await api.act("SendCtrlAltDel")  # on which a guest shuts down
    service.model.processes[badly].end(-signal.SIGKILL)
    for vm_id in (well, badly):
        await service.model.gone(vm_id)
    away = time.time()
    await service.start()
    vm = (await service.call("GetVm", vm="well")).vm
    assert (vm.state, vm.last_exit.cause) == (pb.VM_STATE_CRASHED, "shutdown")
    assert (vm.last_exit.exit_code, vm.HasField("next_start_time")) == (0, False)
    assert vm.last_exit.time.ToMicroseconds() / 1e6 <= away
    assert (await service.until("badly", pb.VM_STATE_RUNNING)).restarts == 1
    # systemd is to forget what vmm has written down.
    assert set(service.model.units) == {badly}
    await service.call("StopVm", vm="badly")
    await service.check()


async def test_sigterm_ends_it_in_order_and_leaves_vms_running(service):
    await service.call("CreateVm", name="hello")
    await service.call("StartVm", vm="hello")
    service.process.terminate()
    assert await asyncio.wait_for(service.process.wait(), SECONDS) == 0
    await service.start()
    (vm,) = await service.check()
    assert vm.state == pb.VM_STATE_RUNNING


async def test_a_stop_does_not_wait_for_watchers(service):
    async with grpc.aio.insecure_channel(f"unix:{service.directory}/server/vmm.sock") as channel:
        stub = vmm_pb2_grpc.VmServiceStub(channel)
        watch = stub.WatchVms(pb.WatchVmsRequest(), wait_for_ready=True)
        assert (await watch.read()).synced
        service.process.terminate()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        # Else the stream would be cut when the grace of the stop is over, and say CANCELLED.
        assert from_rpc_error(caught.value).reason == "STOPPING"
        assert await asyncio.wait_for(service.process.wait(), SECONDS) == 0


async def test_a_stop_does_not_wait_for_those_that_follow_a_console(service):
    vm = (await service.call("CreateVm", name="hello")).vm
    (service.places.console(vm.id) / "log").write_bytes(b"text")
    async with grpc.aio.insecure_channel(f"unix:{service.directory}/server/vmm.sock") as channel:
        stub = vmm_pb2_grpc.VmServiceStub(channel)
        log = stub.GetConsoleLog(
            pb.GetConsoleLogRequest(vm="hello", follow=True), wait_for_ready=True
        )
        assert (await log.read()).data == b"text"
        service.process.terminate()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await log.read()
        assert from_rpc_error(caught.value).reason == "STOPPING"
        assert await asyncio.wait_for(service.process.wait(), SECONDS) == 0


async def test_a_watch_carries_on_over_a_kill_and_tells_of_a_lost_database(service):
    await service.call("CreateVm", name="stays")
    gone = (await service.call("CreateVm", name="goes")).vm
    _, _, synced = await told(service)
    new = (await service.call("CreateVm", name="new")).vm
    await service.call("DeleteVm", vm="goes")
    await service.kill()
    await service.start()
    first, second, again = await told(service, synced.revision)
    assert (first.vm.id, second.deleted_vm_id) == (new.id, gone.id)
    assert synced.revision < first.revision < second.revision == again.revision
    await service.kill()
    for path in (service.directory / "state").glob("vmm.db*"):
        path.unlink()
    await service.start()
    missed, last = await told(service, again.revision)
    assert (missed.missed, last.synced) == (True, True)


async def told(service, after=0):
    """Return what a watch tells up to and with `synced`."""
    events = []
    async with (
        asyncio.timeout(SECONDS),
        grpc.aio.insecure_channel(f"unix:{service.directory}/server/vmm.sock") as channel,
    ):
        request = pb.WatchVmsRequest(after_revision=after)
        watch = vmm_pb2_grpc.VmServiceStub(channel).WatchVms(request, wait_for_ready=True)
        while not events or not events[-1].synced:
            events.append(await watch.read())
    return events


STEPS = ("CreateVm", "StartVm", "StopVm", "StartVm", "StopVm", "DeleteVm")


@pytest.mark.parametrize("seed", range(6))
async def test_killed_at_any_moment_each_request_is_carried_to_its_end(service, seed):
    dice = random.Random(seed)
    await service.vms()
    for number, step in enumerate(STEPS):
        fields = {"request_id": f"request-{number}"}
        fields |= {"name": "hello"} if step == "CreateVm" else {"vm": "hello"}
        calling = asyncio.create_task(service.call(step, **fields))
        # A moment of the operation, from its first packet to after its answer.
        await asyncio.wait({calling}, timeout=dice.uniform(0, 0.15))
        await service.kill()
        with contextlib.suppress(NexusError):
            await calling
        await service.start()
        await service.check()
        await service.call(step, **fields)
        vms = await service.check()
        live = [vm.state in LIVE for vm in vms]
        assert live == {"StartVm": [True], "DeleteVm": []}.get(step, [False])


async def test_bad_input_changes_nothing(service):
    await service.call("CreateVm", name="hello")
    kernel = service.directory / "guest/kernels/default/vmlinux"
    kernel.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(FailedPrecondition, match="Invalid Elf magic number") as caught:
        await service.call("StartVm", vm="hello")
    assert caught.value.reason == "BOOT_FAILED"
    (vm,) = await service.check()
    assert (vm.state, "Elf" in vm.state_reason) == (pb.VM_STATE_FAILED, True)
    with pytest.raises(NotFound, match="debian"):
        await service.call("CreateVm", name="other", spec=pb.VmSpec(image="none"))
    service.systemd.denies = True
    with pytest.raises(FailedPrecondition, match="Permission denied"):
        await service.call("StartVm", vm="hello")
    service.systemd.denies = False
    assert len(await service.check()) == 1


async def test_without_a_bus_it_says_so_and_ends(service):
    await service.kill()
    service.address = f"unix:path={service.directory}/none"
    await service.start()
    assert await asyncio.wait_for(service.process.wait(), SECONDS) == 1
    assert "system bus" in (service.directory / "log").read_text()


async def test_a_second_vmm_is_refused(service):
    await service.vms()
    first = service.process
    await service.start()
    assert await asyncio.wait_for(service.process.wait(), SECONDS) == 1
    service.process = first
    assert await service.vms() == []


async def test_it_forks_nothing_and_stays_small(service):
    for name in ("a", "b"):
        await service.call("CreateVm", name=name)
        await service.call("StartVm", vm=name)
        await service.call("StopVm", vm=name)
    children, kib = of_process(service.process.pid)
    assert children == ""
    assert kib < 70 * 1024


def of_process(pid):
    """Return the ids of a process's children, and its resident memory in KiB."""
    process = Path(f"/proc/{pid}")
    resident = (process / "status").read_text().split("VmRSS:")[1].split()[0]
    return (process / f"task/{pid}/children").read_text(), int(resident)


async def test_its_log_is_json_and_tells_each_change(service):
    await service.call("CreateVm", name="hello")
    await service.call("StartVm", vm="hello")
    await service.kill()
    lines = [json.loads(line) for line in (service.directory / "log").read_text().splitlines()]
    assert any("created -> running (Firecracker runs)" in line["message"] for line in lines)
