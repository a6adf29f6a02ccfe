"""What is left when a step of the composition fails, hangs or is interrupted: nothing."""

import asyncio
import signal

import pytest

from nexus_rpc.errors import DeadlineExceeded, Internal, ResourceExhausted


async def _interrupted(nexusctl, fakes, method, number, *arguments):
    process = await nexusctl.start(*arguments)
    async with asyncio.timeout(20):
        await fakes.called[method].wait()
    process.send_signal(number)
    return process


async def test_a_taken_name_is_a_conflict_and_costs_no_port(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 5
    assert "try: choose another name, or look at it: nexusctl vm inspect hello" in done.err
    assert fakes.calls == ["GetVm"]


async def test_a_bad_name_asks_nobody(nexusctl, fakes):
    assert (await nexusctl("vm", "create", "-x-")).code == 2
    assert (await nexusctl("vm", "create", "x-")).code == 1
    assert fakes.calls == []


async def test_no_address_left(nexusctl, fakes):
    fakes.fail("AttachPort", ResourceExhausted("SUBNET_FULL", "no address is left"))
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 1
    assert "larger subnet" in done.err
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_a_port_whose_answer_was_lost_is_given_back(nexusctl, fakes):
    fakes.fail("AttachPort", "lost", after=True)
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 3
    assert fakes.calls == ["GetVm", "AttachPort", "DetachPort"]
    assert fakes.ports == {}


async def test_a_refused_vm_gives_its_port_back(nexusctl, fakes):
    fakes.fail("CreateVm", Internal("DEFECT", "it broke"))
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 1
    assert fakes.calls == ["GetVm", "AttachPort", "CreateVm", "DetachPort"]
    assert (fakes.vms, fakes.ports) == ({}, {})


@pytest.mark.parametrize("after", [False, True])
async def test_a_create_whose_answer_is_lost_is_repeated(nexusctl, fakes, after):
    fakes.fail("CreateVm", "lost", after=after)
    fakes.fail("CreateVm", "lost", after=after)
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 0
    assert fakes.calls == ["GetVm", "AttachPort", "CreateVm", "CreateVm", "CreateVm"]
    first, *repeats = fakes.requests["CreateVm"]
    assert repeats == [first] * 2
    assert fakes.ports.keys() == fakes.vms.keys() == {first.vm_id}


async def test_a_repeated_create_that_is_refused_gives_its_port_back(nexusctl, fakes):
    fakes.fail("CreateVm", "lost")
    fakes.fail("CreateVm", Internal("DEFECT", "it broke"))
    assert (await nexusctl("vm", "create", "hello")).code == 1
    assert fakes.calls == ["GetVm", "AttachPort", "CreateVm", "CreateVm", "DetachPort"]
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_a_vm_that_may_have_been_made_keeps_its_port(nexusctl, fakes):
    fakes.fail("CreateVm", DeadlineExceeded("DEADLINE_EXCEEDED", "too late"), after=True)
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 1
    assert "running the same command again is safe" in done.err
    assert fakes.ports.keys() == fakes.vms.keys()
    again = await nexusctl("vm", "create", "hello")
    assert again.code == 5
    assert fakes.ports.keys() == fakes.vms.keys()


async def test_a_port_that_cannot_be_given_back_does_not_hide_the_error(nexusctl, fakes):
    fakes.fail("CreateVm", Internal("DEFECT", "it broke"))
    fakes.fail("DetachPort", Internal("DEFECT", "netd broke too"))
    done = await nexusctl("vm", "create", "hello")
    assert done.code == 1
    assert "it broke" in done.err
    assert "netd broke too" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupted_create_leaves_nothing(nexusctl, fakes, number):
    slow = asyncio.Event()
    fakes.fail("CreateVm", slow, after=True)
    process = await _interrupted(nexusctl, fakes, "CreateVm", number, "vm", "create", "hello")
    slow.set()
    done = await nexusctl.end(process)
    assert done.code == 128 + number
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_an_interrupted_create_whose_vm_cannot_be_removed_keeps_its_port(nexusctl, fakes):
    slow = asyncio.Event()
    fakes.fail("CreateVm", slow, after=True)
    fakes.fail("StopVm", "lost")
    arguments = ("vm", "create", "hello")
    process = await _interrupted(nexusctl, fakes, "CreateVm", signal.SIGINT, *arguments)
    slow.set()
    done = await nexusctl.end(process)
    assert done.code == 130
    assert "whether hello was made is unknown" in done.err
    assert fakes.ports.keys() == fakes.vms.keys() != set()


async def test_interrupted_while_the_port_is_made(nexusctl, fakes):
    slow = asyncio.Event()
    fakes.fail("AttachPort", slow, after=True)
    arguments = ("vm", "create", "hello")
    process = await _interrupted(nexusctl, fakes, "AttachPort", signal.SIGINT, *arguments)
    slow.set()
    done = await nexusctl.end(process)
    assert done.code == 130
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_a_second_interruption_is_obeyed_at_once(nexusctl, fakes):
    fakes.fail("CreateVm", "hang")
    arguments = ("vm", "create", "hello")
    process = await _interrupted(nexusctl, fakes, "CreateVm", signal.SIGINT, *arguments)
    async with asyncio.timeout(20):
        assert b"again to stop at once" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    done = await nexusctl.end(process)
    assert done.code == 130
    assert fakes.vms == {}
