"""Firecracker's API: what is sent, and answers that no sane Firecracker gives."""

import asyncio
import contextlib
import json
import os
from contextlib import closing

import pytest
import vmm_guest
import vmm_units
from vmm_firecracker import Machine

from nexus_vmm.machine import disks
from nexus_vmm.machine.configuration import configuration
from nexus_vmm.machine.firecracker import ApiError, Fault, dial, dial_new


async def test_a_machine_is_configured_and_started(short_path):
    places = vmm_guest.places(short_path)
    disks.make_home(places, vmm_guest.ID, 16)
    machine = Machine(vmm_units.make_run(places.run_dir, vmm_guest.ID), vmm_guest.ID)
    await machine.serve()
    assets = vmm_guest.guest_files(short_path / "guest")
    vm = vmm_guest.vm(spec=vmm_guest.spec(network=vmm_guest.NETWORK, balloon=True))
    with closing(await dial(machine.path, os.getuid())) as api:
        assert (await api.get("/"))["state"] == "Not started"
        await api.put_all(configuration(vm, assets.find(vm.spec), assets.directory))
        await api.act("InstanceStart")
        assert (await api.get("/"))["state"] == "Running"
        await api.patch("/vm", {"state": "Paused"})
        assert (await api.get("/"))["state"] == "Paused"
        with pytest.raises(Fault, match="not supported after starting") as caught:
            await api.put_all([("/machine-config", {})])
        assert caught.value.path == "/machine-config"
    sent = machine.resources
    assert list(sent)[2:5] == ["/drives/image", "/drives/overlay", "/drives/runtime"]
    assert [sent[path]["is_read_only"] for path in list(sent)[2:5]] == [True, False, True]
    assert sent["/machine-config"] == {"vcpu_count": 1, "mem_size_mib": 128}
    assert sent["/vsock"] == {"guest_cid": 3, "uds_path": "vsock/agent.sock"}
    assert sent["/network-interfaces/eth0"] == {
        "iface_id": "eth0",
        "guest_mac": "02:fc:00:00:00:01",
        "host_dev_name": "tap0",
    }
    assert sent["/balloon"]["amount_mib"] == 0
    machine.end(0)


def test_balloon_and_network_are_left_out_unless_asked_for(tmp_path):
    assets = vmm_guest.guest_files(tmp_path)
    vm = vmm_guest.vm()
    paths = {path for path, _ in configuration(vm, assets.find(vm.spec), tmp_path)}
    assert not paths & {"/balloon", "/network-interfaces/eth0"}


@contextlib.asynccontextmanager
async def answering(path, answer):
    """Serve one that answers a request with `answer`, whatever it is, and hangs up."""
    done = asyncio.Event()

    async def connected(reader, writer):
        await reader.readline()
        writer.write(answer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        done.set()

    server = await asyncio.start_unix_server(connected, path)
    yield
    await asyncio.wait_for(done.wait(), 5)
    server.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"\xff\xff\xff\r\n\r\n",
    ],
)
async def test_no_answer_is_an_error_and_takes_no_memory(short_path, answer):
    path = short_path / "api.sock"
    async with answering(path, answer):
        with closing(await dial(path, os.getuid())) as api, pytest.raises(ApiError, match="/: "):
            await asyncio.wait_for(api.get("/"), 5)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"fault_message": "its own words"}, "its own words"),
        ({}, "status 400"),
        ({"fault_message": "\ud800 \x1b[2J\nred" + "x" * 60_000}, "^   \\[2J redx{500,510}$"),
    ],
)
async def test_a_fault_keeps_its_words(short_path, body, text):
    payload = json.dumps(body).encode()
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
    path = short_path / "api.sock"
    async with answering(path, head + payload):
        with closing(await dial(path, os.getuid())) as api, pytest.raises(Fault, match=text):
            await api.act("InstanceStart")


async def test_a_new_socket_is_awaited(short_path):
    path = short_path / "api.sock"
    dialling = asyncio.create_task(dial_new(path, os.getuid()))
    await asyncio.sleep(0)
    async with answering(path, b""):
        with closing(await asyncio.wait_for(dialling, 5)):
            pass


async def test_nothing_there_is_an_error_at_once(short_path):
    with pytest.raises(FileNotFoundError):
        await dial(short_path / "api.sock", os.getuid())
