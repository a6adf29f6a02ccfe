"""vm run: a VM for one command, and none after it, however it ends."""

import asyncio
import signal

import pytest

from nexus_rpc.errors import FailedPrecondition, Internal

WHOLE = ["GetVm", "AttachPort", "CreateVm", "StartVm", "GetGuest", "Exec"]
CLEAN = ["StopVm", "DeleteVm", "DetachPort"]


async def test_run_passes_the_exit_code_on_and_leaves_nothing(nexusctl, fakes):
    done = await nexusctl("vm", "run", "alpine", "--memory", "256", "--", "exit", "7")
    assert (done.code, done.out, done.err) == (7, b"", "")
    assert fakes.calls == WHOLE + CLEAN
    spec = fakes.requests["CreateVm"][0].spec
    assert (spec.image, spec.memory_mib) == ("alpine", 256)
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_run_gives_the_command_its_input_and_environment(nexusctl, fakes):
    done = await nexusctl(
        *("vm", "run", "debian", "--env", "A=1", "--env", "B=x=y", "--cwd", "/tmp", "--", "cat"),
        stdin=b"in\x00\xff",
    )
    assert (done.code, done.out) == (0, b"in\x00\xff")
    request = fakes.requests["Exec"][0]
    assert (dict(request.env), request.cwd) == ({"A": "1", "B": "x=y"}, "/tmp")


@pytest.mark.parametrize("step", ["StartVm", "GetGuest", "Exec"])
async def test_run_deletes_when_a_step_fails(nexusctl, fakes, step):
    fakes.fail(step, Internal("DEFECT", "it broke"))
    done = await nexusctl("vm", "run", "debian", "--", "exit", "0")
    assert done.code == 125
    assert "it broke; " in done.err
    assert "does not stay" in done.err
    assert fakes.calls[-3:] == CLEAN
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_run_of_a_missing_image_leaves_nothing(nexusctl, fakes):
    done = await nexusctl("vm", "run", "none", "--", "exit", "0")
    assert done.code == 125
    assert (fakes.vms, fakes.ports) == ({}, {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_run_deletes_when_it_is_interrupted(nexusctl, fakes, number):
    process = await nexusctl.start("vm", "run", "debian", "--", "sleep")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    done = await nexusctl.end(process)
    assert done.code == 128 + number
    async with asyncio.timeout(20):
        await fakes.killed.wait()  # the gateway's fake may hear of it last
    assert fakes.calls == WHOLE + CLEAN
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_a_vm_that_could_not_be_deleted_is_named(nexusctl, fakes):
    fakes.fail("DeleteVm", FailedPrecondition("VM_BUSY", "disk in use"))
    done = await nexusctl("vm", "run", "debian", "--", "exit", "0")
    (vm,) = fakes.vms.values()
    assert done.code == 125
    assert f"{vm.name} was not deleted: disk in use" in done.err
    assert f"try: nexusctl vm delete {vm.name} --force --yes" in done.err
