"""The gateway's servicer behind real gRPC, the real guest agent, and a stand-in for vmm."""

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from free_port import free_port
from gateway_doubles import FakeVmm, make_vm, real_agent, serving_vmm

from nexus.gateway.v1 import gateway_pb2_grpc
from nexus.vmm.v1 import vmm_pb2 as vmm
from nexus_gateway.app import compose
from nexus_gateway.settings import McpSettings, Settings
from nexus_rpc.channel import OPTIONS, connect
from nexus_rpc.interceptors import AroundCalls, errors, observed

TOKEN = "a-token-of-sufficient-length"


class Gateway:
    """A gateway in this process, one VM behind it, and a client."""

    def __init__(self, directory, vmm, url):
        self.url = url
        self.directory = directory
        self.vmm = vmm
        self.target = f"unix:{directory}/gateway.sock"
        self.stub = None
        self.agent = None


@pytest.fixture
def token():
    return TOKEN


@pytest.fixture
async def gateway(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    mcp = McpSettings(listen=f"127.0.0.1:{free_port()}", token=tmp_path / "token", max_sessions=8)
    settings = Settings(vmm=f"unix:{tmp_path}/vmm.sock", mcp=mcp)
    fake = FakeVmm()
    gateway = Gateway(tmp_path, fake, f"http://{mcp.listen}")
    async with AsyncExitStack() as stack:
        path, gateway.agent = await stack.enter_async_context(real_agent(tmp_path))
        fake.put(make_vm(path=path))
        fake.put(make_vm("off", vm_id="b" * 13, state=vmm.VM_STATE_STOPPED))
        await stack.enter_async_context(serving_vmm(fake, tmp_path / "vmm.sock"))
        resources = await stack.enter_async_context(AsyncExitStack())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        work = Work(tasks)
        bindings = await compose(settings, resources, work)
        stack.callback(work.cancel)
        server = grpc.aio.server(
            interceptors=[AroundCalls(observed), AroundCalls(errors)], options=OPTIONS
        )
        for binding in bindings:
            binding.add(binding.servicer, server)
        server.add_insecure_port(gateway.target)
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(connect(gateway.target))
        gateway.stub = gateway_pb2_grpc.GuestServiceStub(channel)
        yield gateway


class Work:
    """A task group whose tasks can be cancelled together, as the end of a service does."""

    def __init__(self, tasks):
        self._tasks = tasks
        self._started = []

    def create_task(self, work):
        task = self._tasks.create_task(work)
        self._started.append(task)
        return task

    def cancel(self):
        for task in self._started:
            task.cancel()
