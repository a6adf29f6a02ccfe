"""vm exec: bytes apart, the command's exit code, and an end that reaches the guest."""

import asyncio
import os
import signal

import pytest

from nexus.vmm.v1 import vmm_pb2


@pytest.fixture(autouse=True)
def hello(fakes):
    return fakes.add_vm("hello", vmm_pb2.VM_STATE_READY)


async def test_streams_stay_apart_and_are_bytes(nexusctl):
    done = await nexusctl("vm", "exec", "hello", "--", "talk")
    assert done.out == b"out\x00\xff0\nout\x00\xff1\nout\x00\xff2\n"
    assert done.err == "err0\nerr1\nerr2\n"
    assert done.code == 0


@pytest.mark.parametrize("code", [0, 1, 3, 125, 137, 255])
async def test_the_exit_code_is_the_commands(nexusctl, code):
    done = await nexusctl("vm", "exec", "hello", "--", "exit", str(code))
    assert (done.code, done.err) == (code, "")


async def test_options_go_along(nexusctl, fakes):
    command = ("exit", "0", "--json", "--", "-x")
    await nexusctl("vm", "exec", "hello", "--env", "K=V=W", "--cwd", "/srv", "--", *command)
    request = fakes.requests["Exec"][0]
    assert (list(request.argv), dict(request.env), request.cwd) == (
        list(command),
        {"K": "V=W"},
        "/srv",
    )


async def test_piped_input_reaches_the_command(nexusctl):
    data = os.urandom(1024 * 1024)
    done = await nexusctl("vm", "exec", "hello", "--", "cat", stdin=data)
    assert done.out == data


async def test_input_from_a_file(nexusctl, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"from a file")
    with path.open("rb") as file:
        process = await nexusctl.start("vm", "exec", "hello", "--", "cat", stdin=file)
    assert (await nexusctl.end(process)).out == b"from a file"


async def test_too_much_input_is_refused_before_the_command_runs(nexusctl, fakes):
    done = await nexusctl("vm", "exec", "hello", "--", "cat", stdin=bytes(1024 * 1024 + 1))
    assert done.code == 125
    assert "try: nexusctl vm cp - hello:/tmp/input" in done.err
    assert fakes.calls == []


async def test_no_such_command_is_127_as_in_a_shell(nexusctl):
    done = await nexusctl("vm", "exec", "hello", "--", "nothing")
    assert done.code == 127
    assert done.err.startswith("nexusctl: there is no program 'nothing'\ntry: ")


async def test_an_output_without_an_end_is_no_success(nexusctl):
    done = await nexusctl("vm", "exec", "hello", "--", "vanish")
    assert done.code == 125
    assert "without its exit code" in done.err


async def test_ctrl_c_ends_the_command_in_the_guest(nexusctl, fakes):
    process = await nexusctl.start("vm", "exec", "hello", "--", "sleep")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        await fakes.killed.wait()
    assert (await nexusctl.end(process)).code == 130


async def test_ctrl_c_is_heard_while_nobody_reads_the_output(nexusctl):
    reading, writing = os.pipe()
    process = await nexusctl.start("vm", "exec", "hello", "--", "flood", stdout=writing)
    os.close(writing)
    try:
        loop = asyncio.get_running_loop()
        full = asyncio.Event()
        loop.add_reader(reading, full.set)
        async with asyncio.timeout(20):
            await full.wait()
        loop.remove_reader(reading)
        process.send_signal(signal.SIGINT)
        assert (await nexusctl.end(process)).code == 130
    finally:
        os.close(reading)


async def test_a_reader_that_goes_away_ends_it_quietly(nexusctl):
    reading, writing = os.pipe()
    os.close(reading)
    process = await nexusctl.start("vm", "exec", "hello", "--", "flood", stdout=writing)
    os.close(writing)
    done = await nexusctl.end(process)
    assert (done.code, done.err) == (141, "")


async def test_a_gateway_that_dies_meanwhile_is_told(nexusctl, served):
    process = await nexusctl.start("vm", "exec", "hello", "--", "sleep")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"begun\n"
    await served.stop("gateway")
    done = await nexusctl.end(process)
    assert done.code == 125
    assert "gateway" in done.err
