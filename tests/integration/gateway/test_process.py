"""The gateway as a process, as systemd runs it: start, restart, stop, and what it costs."""

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx2
import pytest
from free_port import free_port
from gateway_doubles import FakeGuest, FakeVmm, agreeable, make_vm, real_agent, serving_vmm
from guest_agent import wait_until_gone
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from notifications import Notifications

from nexus.gateway.v1 import gateway_pb2 as pb
from nexus.gateway.v1 import gateway_pb2_grpc
from nexus.vmm.v1 import vmm_pb2 as vmm
from nexus_guest.wire import Kind
from nexus_rpc.channel import connect

VM = "a" * 13
TOKEN = "a-token-of-sufficient-length"


class Setup:
    """A directory with settings for a gateway of its own."""

    def __init__(self, directory):
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_port()}"
        self.config = directory / "gateway.toml"
        (directory / "mcp-token").write_text(TOKEN)
        self.config.write_text(
            f'vmm = "unix:{directory}/vmm.sock"\n'
            f'[server]\nruntime_dir = "{directory}"\n'
            f'[mcp]\nlisten = "{self.url.removeprefix("http://")}"\n'
        )

    async def start(self, **environment):
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "nexus_gateway",
            "--config",
            self.config,
            env=os.environ | {"CREDENTIALS_DIRECTORY": str(self.directory)} | environment,
            stderr=asyncio.subprocess.PIPE,
        )

    @asynccontextmanager
    async def running(self):
        """Yield the process, once it is ready, and a client of it."""
        with Notifications(self.directory / "notify") as notifications:
            process = await self.start(NOTIFY_SOCKET=str(notifications.path))
            drain = asyncio.create_task(process.stderr.read())
            try:
                await notifications.until("READY=1", process)
                async with connect(f"unix:{self.directory}/gateway.sock") as channel:
                    yield process, gateway_pb2_grpc.GuestServiceStub(channel)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await drain


@pytest.fixture
def setup(tmp_path):
    return Setup(tmp_path)


async def ready(stub, name="hello"):
    request = pb.GetGuestRequest(vm=name, wait_ready=True)
    return (await stub.GetGuest(request, timeout=30, wait_for_ready=True)).guest


async def output(stub, *argv):
    call = stub.Exec(pb.ExecRequest(vm="hello", argv=argv), timeout=30)
    return b"".join([event.stdout async for event in call])


def rss_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def children(pid):
    return "".join((task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir())


async def test_killed_at_any_moment_it_is_back_with_the_guest_and_vmm_down_is_no_matter(
    setup, tmp_path
):
    fake = FakeVmm()
    async with real_agent(tmp_path) as (path, _):
        fake.put(make_vm(path=path))
        async with serving_vmm(fake, tmp_path / "vmm.sock"), setup.running() as (process, stub):
            assert (await ready(stub)).state == pb.GUEST_STATE_READY
            await fake.until(VM, vmm.VM_STATE_READY)
            script = "echo $$; exec sleep 1000"
            call = stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", script]))
            pid = int((await call.read()).stdout)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            # Nobody is left to hear the command, so the guest ends it.
            await asyncio.to_thread(wait_until_gone, pid)
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        async with setup.running() as (_, stub):
            async with serving_vmm(fake, tmp_path / "vmm.sock"):
                assert (await ready(stub)).state == pb.GUEST_STATE_READY
            # vmm is gone now; what was told last stands.
            assert await output(stub, "echo", "still") == b"still\n"
    assert fake.reports == [
        vmm.GUEST_EVENT_HELLO,
        vmm.GUEST_EVENT_PROVISIONING,
        vmm.GUEST_EVENT_READY,
    ]


# Of the MCP client, which is cancelled while its server is gone; the gateway is another process.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_stops_in_order_and_in_time_with_everything_open(setup, tmp_path):
    result = asyncio.get_running_loop().create_future()

    async def use_mcp():
        async with (
            httpx2.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}) as http,
            Client(
                streamable_http_client(f"{setup.url}/vms/hello/mcp", http_client=http),
                mode="legacy",
            ) as client,
        ):
            asked = {"command": "uname", "args": ["-r"]}
            result.set_result(await client.call_tool("run_command", asked))
            await asyncio.Event().wait()

    fake = FakeVmm()
    async with real_agent(tmp_path) as (path, _), serving_vmm(fake, tmp_path / "vmm.sock"):
        fake.put(make_vm(path=path))
        async with setup.running() as (process, stub):
            await ready(stub)
            call = stub.Exec(pb.ExecRequest(vm="hello", argv=["sh", "-c", "echo $$; sleep 1000"]))
            pid = int((await call.read()).stdout)
            using = asyncio.create_task(use_mcp())
            async with asyncio.timeout(30):
                kernel = (await result).structured_content["stdout"].strip()
            assert kernel == os.uname().release

            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):  # what systemd gives it
                assert await process.wait() == 0
            await asyncio.to_thread(wait_until_gone, pid)
            call.cancel()
            using.cancel()
            await asyncio.gather(using, return_exceptions=True)


async def test_what_it_costs_idle_and_under_a_flood(setup, tmp_path):
    async def floods(side):
        await side.receive()
        await side.message(Kind.REPLY, pid=1)
        while True:
            await side.frame(Kind.STDOUT, bytes(1 << 20))

    fake = FakeVmm()
    hostile = FakeGuest(tmp_path / "hostile.sock", port100=agreeable, port300=floods)
    async with (
        real_agent(tmp_path) as (path, _),
        serving_vmm(fake, tmp_path / "vmm.sock"),
        hostile,
        setup.running() as (process, stub),
    ):
        fake.put(make_vm(path=path))
        fake.put(make_vm("hostile", vm_id="b" * 13, path=hostile.path))
        await ready(stub)
        await ready(stub, "hostile")
        idle = rss_mib(process.pid)

        # Eight clients that read one message and then no more.
        calls = [stub.Exec(pb.ExecRequest(vm="hostile", argv=["x"])) for _ in range(8)]
        for call in calls:
            await call.read()
        for _ in range(50):
            await output(stub, "true")
        flooded = rss_mib(process.pid)
        assert children(process.pid) == ""
        for call in calls:
            call.cancel()
        assert idle < 110
        assert flooded - idle < 8 * 12


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda setup: setup.config.write_text("nonsense = 1"), 2, "nonsense"),
        (lambda setup: (setup.directory / "mcp-token").unlink(), 1, "no token"),
        (lambda setup: (setup.directory / "mcp-token").write_text("short"), 1, "16 or more"),
    ],
)
async def test_a_start_that_cannot_be_says_why(setup, change, code, says):
    change(setup)
    process = await setup.start()
    _, stderr = await process.communicate()
    assert process.returncode == code
    assert says in stderr.decode()


async def test_a_port_that_is_taken(setup):
    with socket.create_server(("127.0.0.1", int(setup.url.rpartition(":")[2]))):
        process = await setup.start()
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert "mcp.listen" in stderr.decode()


async def test_metrics_count_what_was_done(setup, tmp_path):
    fake = FakeVmm()
    async with (
        real_agent(tmp_path) as (path, _),
        serving_vmm(fake, tmp_path / "vmm.sock"),
        setup.running() as (_, stub),
    ):
        fake.put(make_vm(path=path))
        await ready(stub)
        await output(stub, "echo", "0123456789")
        transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "metrics.sock"))
        async with httpx2.AsyncClient(transport=transport) as http:
            text = (await http.get("http://gateway/metrics")).text
    lines = {line.split("{")[0]: line for line in text.splitlines() if line.startswith("nexus_")}
    assert lines["nexus_gateway_commands_total"].endswith(" 1.0")
    assert lines["nexus_gateway_received_bytes_total"].endswith(" 11.0")
    assert lines["nexus_gateway_command_duration_seconds_count"].endswith(" 1.0")
    assert any('state="ready"' in line and line.endswith(" 1.0") for line in text.splitlines())
