"""GuestService as gateway.proto says it, against the real guest agent."""

import asyncio
import os
import signal

import grpc
import pytest
from guest_agent import wait_until_gone

from nexus.gateway.v1 import gateway_pb2 as pb
from nexus.vmm.v1 import vmm_pb2 as vmm
from nexus_rpc.errors import from_rpc_error


async def run(gateway, *argv, **fields):
    """Run a command; return its output, its errors, and its exit."""
    out, err, exit_ = b"", b"", None
    request = pb.ExecRequest(vm="hello", argv=argv, **fields)
    async for event in gateway.stub.Exec(request, timeout=60):
        out += event.stdout
        err += event.stderr
        if event.WhichOneof("event") == "exit":
            assert exit_ is None
            exit_ = event.exit
    return out, err, exit_


async def read(gateway, path):
    parts = [
        part async for part in gateway.stub.ReadFile(pb.ReadFileRequest(vm="hello", path=path))
    ]
    assert parts[0].WhichOneof("part") == "info"
    return parts[0].info, b"".join(part.data for part in parts[1:])


def pieces(path, data, *, vm="hello", size=1 << 20, **target):
    yield pb.WriteFileRequest(target=pb.FileTarget(vm=vm, path=str(path), **target))
    for start in range(0, len(data), size):
        yield pb.WriteFileRequest(data=data[start : start + size])


async def without_end(path):
    """A file of which the rest never comes: only an early answer ends the call."""
    for request in pieces(path, b"x"):
        yield request
    await asyncio.Event().wait()


async def fails(call):
    """Await a call or drain a stream; return the error it ends with, as (code, reason)."""

    async def end():
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await end()
    error = from_rpc_error(caught.value)
    return error.code.name, error.reason


async def test_get_guest_waits_until_it_is_ready(gateway):
    answer = await gateway.stub.GetGuest(
        pb.GetGuestRequest(vm="hello", wait_ready=True), timeout=20
    )
    assert answer.guest.state == pb.GUEST_STATE_READY
    assert answer.guest.kernel == os.uname().release
    assert answer.guest.vm_id == "a" * 13
    await gateway.vmm.until("a" * 13, vmm.VM_STATE_READY)


async def test_a_live_guest_is_configured_again_when_its_address_changes(gateway):
    network = vmm.NetworkInterface(
        tap="tap0",
        mac="02:fc:00:00:00:01",
        gateway="172.16.0.1",
        ipv6="fd00::2/128",
        ipv6_gateway="fd00::1",
        search=["corp.example"],
    )
    request = pb.GetGuestRequest(vm="hello", wait_ready=True)
    boot_ids = set()
    for address in ("172.16.0.2", "172.16.0.9"):
        network.ipv4 = f"{address}/12"
        gateway.vmm.change("a" * 13, spec=vmm.VmSpec(network=network))
        async with asyncio.timeout(20):
            while True:  # nothing tells of a change of warnings
                guest = (await gateway.stub.GetGuest(request, timeout=20)).guest
                if guest.warnings == [f"not in a VM: hostname hello and {address} are not set"]:
                    break
                await asyncio.sleep(0.01)
        assert guest.state == pb.GUEST_STATE_READY
        boot_ids.add(guest.boot_id)
    assert len(boot_ids) == 1


async def test_get_guest_without_waiting(gateway):
    answer = await gateway.stub.GetGuest(pb.GetGuestRequest(vm="hello"), timeout=20)
    assert answer.guest.state != pb.GUEST_STATE_UNSPECIFIED


async def test_get_guest_says_what_it_waits_for(gateway):
    gateway.vmm.put(
        vmm.Vm(id="c" * 13, name="mute", state=vmm.VM_STATE_RUNNING, boot="1", vsock_path="/none")
    )
    call = gateway.stub.GetGuest(pb.GetGuestRequest(vm="mute", wait_ready=True), timeout=1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc_error(caught.value)
    assert (error.code.name, error.reason) == ("DEADLINE_EXCEEDED", "GUEST_NOT_READY")
    assert "CONNECTING" in error.message
    assert "No such file" in error.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nobody", ("NOT_FOUND", "VM_NOT_FOUND")),
        ("off", ("FAILED_PRECONDITION", "VM_NOT_LIVE")),
        ("No_Good", ("INVALID_ARGUMENT", "INVALID_FIELD")),
    ],
)
async def test_a_vm_that_is_not_there_or_not_live(gateway, name, expected):
    stub = gateway.stub
    assert await fails(stub.GetGuest(pb.GetGuestRequest(vm=name))) == expected
    assert await fails(stub.GetGuest(pb.GetGuestRequest(vm=name, wait_ready=True))) == expected
    assert await fails(stub.Exec(pb.ExecRequest(vm=name, argv=["true"]))) == expected
    assert await fails(stub.ReadFile(pb.ReadFileRequest(vm=name, path="/etc/passwd"))) == expected
    assert await fails(stub.WriteFile(pieces("/tmp/x", b"", vm=name))) == expected
    assert await fails(stub.DeleteFile(pb.DeleteFileRequest(vm=name, path="/tmp/x"))) == expected


async def test_exec_keeps_the_streams_and_the_exit_code_apart(gateway):
    out, err, exit_ = await run(gateway, "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\0")
    assert (out, err, exit_.code, exit_.signal) == (b"in\0", b"err\n", 7, 0)


async def test_exec_ended_by_a_signal(gateway):
    _, _, exit_ = await run(gateway, "sh", "-c", "kill -9 $$")
    assert (exit_.code, exit_.signal) == (137, signal.SIGKILL)


async def test_exec_with_environment_and_directory(gateway, tmp_path):
    out, _, _ = await run(
        gateway, "sh", "-c", 'echo "$WORD"; pwd', env={"WORD": "käse"}, cwd=str(tmp_path)
    )
    assert out.decode() == f"käse\n{tmp_path}\n"


async def test_exec_streams_as_it_comes(gateway, tmp_path):
    os.mkfifo(tmp_path / "go")
    script = f"echo first; read line < {tmp_path}/go; echo $line"
    call = gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", script]))
    assert (await call.read()).stdout == b"first\n"
    await asyncio.to_thread((tmp_path / "go").write_bytes, b"second\n")
    assert (await call.read()).stdout == b"second\n"
    assert (await call.read()).exit.code == 0


async def test_exec_takes_and_gives_a_megabyte(gateway):
    data = os.urandom(1 << 20)
    out, _, exit_ = await run(gateway, "cat", stdin=data)
    assert (out == data, exit_.code) == (True, 0)


async def test_a_command_that_reads_no_input_ends_all_the_same(gateway):
    out, _, exit_ = await run(gateway, "echo", "done", stdin=bytes(1 << 20))
    assert (out, exit_.code) == (b"done\n", 0)


async def test_ending_the_call_kills_the_command_and_its_children(gateway):
    script = "sleep 1000 & echo $! $$; wait"
    call = gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", script]))
    child, parent = map(int, (await call.read()).stdout.split())
    call.cancel()
    await asyncio.to_thread(wait_until_gone, parent)
    await asyncio.to_thread(wait_until_gone, child)


async def test_a_deadline_kills_the_command(gateway):
    call = gateway.stub.Exec(
        pb.ExecRequest(vm="hello", argv=["sh", "-c", "echo $$; exec sleep 1000"]), timeout=1
    )
    pid = int((await call.read()).stdout)
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    await asyncio.to_thread(wait_until_gone, pid)


async def test_a_slow_client_slows_the_command(gateway, tmp_path):
    # 64 MB at once: it must wait in the command, not in the gateway.
    mark = tmp_path / "mark"
    script = f"head -c 64000000 /dev/zero; touch {mark}"
    call = gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", script]))
    size = len((await call.read()).stdout)
    assert not mark.exists()
    while (event := await call.read()) is not grpc.aio.EOF:
        size += len(event.stdout)
    assert size == 64_000_000
    assert mark.exists()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"argv": []}, ("INVALID_ARGUMENT", "INVALID_FIELD")),
        ({"argv": ["true"], "cwd": "relative"}, ("INVALID_ARGUMENT", "INVALID_FIELD")),
        ({"argv": ["true"], "cwd": "/none"}, ("INVALID_ARGUMENT", "INVALID_FIELD")),
        ({"argv": ["true"], "env": {"A=B": ""}}, ("INVALID_ARGUMENT", "INVALID_FIELD")),
        ({"argv": ["no-such-command"]}, ("NOT_FOUND", "COMMAND_NOT_FOUND")),
    ],
)
async def test_exec_of_what_cannot_be(gateway, request_, expected):
    assert await fails(gateway.stub.Exec(pb.ExecRequest(vm="hello", **request_))) == expected


@pytest.mark.parametrize("size", [0, 1, 5_000_000, 64_000_000])
async def test_a_file_goes_in_and_comes_back_identical(gateway, tmp_path, size):
    data = os.urandom(size)
    path = tmp_path / "deep" / "er" / "file"
    written = await gateway.stub.WriteFile(pieces(path, data, mode=0o640))
    info, back = await read(gateway, str(path))
    assert written.size == info.size == size
    assert info.mode == 0o640
    assert back == data


async def test_a_file_keeps_its_mode_where_none_is_given(gateway, tmp_path):
    path = tmp_path / "file"
    await gateway.stub.WriteFile(pieces(path, b"new"))
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    await gateway.stub.WriteFile(pieces(path, b"newer"))
    assert (path.stat().st_mode & 0o777, path.read_bytes()) == (0o600, b"newer")


@pytest.mark.parametrize("how", ["cancelled", "out of time", "out of breath"])
async def test_a_broken_write_leaves_the_old_file_and_nothing_else(gateway, tmp_path, how):
    directory = tmp_path / "files"
    directory.mkdir()
    path = directory / "file"
    path.write_bytes(b"old")

    async def half(count, begun):
        for request in pieces(path, bytes(count << 18), size=1 << 18):
            yield request
        begun.set()
        if how == "out of breath":
            raise ZeroDivisionError
        await asyncio.Event().wait()

    # Often, as it is a race: to the gateway a broken call may look like one that has ended.
    for count in range(40):
        begun = asyncio.Event()
        timeout = 0.05 if how == "out of time" else None
        call = gateway.stub.WriteFile(half(count % 5, begun), timeout=timeout)
        if how == "cancelled":
            await begun.wait()
            call.cancel()
        with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
            await call
    # The agent serves what comes later after it has cleaned up, or while it does.
    async with asyncio.timeout(10):
        while len(list(directory.iterdir())) > 1:
            await run(gateway, "true")
    assert path.read_bytes() == b"old"


async def test_delete(gateway, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    await gateway.stub.DeleteFile(pb.DeleteFileRequest(vm="hello", path=str(path)))
    assert not path.exists()


async def test_files_that_are_not_there_or_no_files(gateway, tmp_path):
    stub, none, directory = gateway.stub, str(tmp_path / "none"), str(tmp_path)
    not_found, no_file = ("NOT_FOUND", "FILE_NOT_FOUND"), ("FAILED_PRECONDITION", "NOT_A_FILE")
    invalid = ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await fails(stub.ReadFile(pb.ReadFileRequest(vm="hello", path=none))) == not_found
    assert await fails(stub.ReadFile(pb.ReadFileRequest(vm="hello", path=directory))) == no_file
    assert await fails(stub.ReadFile(pb.ReadFileRequest(vm="hello", path="x"))) == invalid
    assert await fails(stub.DeleteFile(pb.DeleteFileRequest(vm="hello", path=none))) == not_found
    assert await fails(stub.DeleteFile(pb.DeleteFileRequest(vm="hello", path=directory))) == no_file
    assert await fails(stub.WriteFile(without_end(tmp_path))) == no_file
    assert await fails(stub.WriteFile(pieces(none, b"", mode=0o10000))) == invalid
    assert await fails(stub.WriteFile(iter([]))) == invalid
    assert await fails(stub.WriteFile(iter([pb.WriteFileRequest(data=b"x")]))) == invalid


async def test_a_full_disk(gateway):
    # /dev/full is no regular file, so the agent refuses it before it could fill up.
    assert await fails(gateway.stub.WriteFile(pieces("/dev/full", b"x"))) == (
        "FAILED_PRECONDITION",
        "NOT_A_FILE",
    )


async def test_a_refusal_at_the_moment_when_the_file_has_come_is_not_lost(gateway):
    async def refused():
        for _ in range(100):
            call = gateway.stub.WriteFile(pieces("/dev/full", b"x"), timeout=30)
            assert await fails(call) == ("FAILED_PRECONDITION", "NOT_A_FILE")

    await asyncio.gather(*(refused() for _ in range(4)))


async def test_a_second_target_in_the_middle(gateway, tmp_path):
    requests = [*pieces(tmp_path / "a", b"x"), *pieces(tmp_path / "b", b"y")]
    expected = ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await fails(gateway.stub.WriteFile(iter(requests))) == expected
    assert not (tmp_path / "a").exists()


async def test_a_guest_that_dies_in_the_middle(gateway):
    call = gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", "echo on; sleep 1000"]))
    assert (await call.read()).stdout == b"on\n"
    gateway.agent.kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert from_rpc_error(caught.value).reason == "GUEST_UNREACHABLE"
    expected = ("UNAVAILABLE", "GUEST_UNREACHABLE")
    assert await fails(gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["true"]))) == expected


async def test_too_many_operations_at_once(gateway):
    calls = [
        gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", "echo on; sleep 1000"]))
        for _ in range(48)
    ]
    for call in calls:
        await call.read()
    refused = ("RESOURCE_EXHAUSTED", "GUEST_BUSY")
    assert await fails(gateway.stub.Exec(pb.ExecRequest(vm="hello", argv=["true"]))) == refused
    for call in calls:
        call.cancel()
