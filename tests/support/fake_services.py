"""The services as nexusctl meets them, in memory: for tests of nexusctl as a process.

Every call is written down in order. `fail` lets the next call of a method end as the test wants:
with an error of the domain, "lost" (as if the connection had broken), "hang" (never answered), or
an event to wait for.
"""

import asyncio
import json
from collections import defaultdict
from contextlib import asynccontextmanager

import grpc
from fake_netd import FakeNetd, Wires
from fake_settings import FakeSettings
from fake_vmm import FakeVmm
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from nexus.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from nexus.netd.v1 import netd_pb2_grpc
from nexus.vmm.v1 import settings_pb2_grpc, vmm_pb2, vmm_pb2_grpc
from nexus_rpc.channel import OPTIONS
from nexus_rpc.errors import FailedPrecondition, NotFound
from nexus_rpc.interceptors import AroundCalls, errors
from nexus_rpc.vms import LIVE
from nexusctl.interfaces import of_port


class Fakes:
    """The state behind the servicers, and what was asked of them."""

    def __init__(self):
        self.calls = []
        self.requests = defaultdict(list)
        self.metadata = {}
        self.faults = defaultdict(list)
        self.called = defaultdict(asyncio.Event)
        self.sent = defaultdict(asyncio.Event)
        self.vms = {}
        self.subsystems = {"store": "", "kvm": ""}
        self.wires = Wires()
        self.files = {}
        self.budgets = []
        self.console = b""
        self.printed = asyncio.Queue()
        self.typed = asyncio.Queue()
        self.announced = None
        self.hangs_up = False
        self.killed = asyncio.Event()
        self.release = asyncio.Event()
        self.page = 1000
        self.watchers = set()

    def fail(self, method, fault, *, after=False):
        """Let the next call of `method` end with `fault`; `after` it was carried out."""
        self.faults[method, after].append(fault)

    async def begin(self, request, context):
        method = type(request).__name__.removesuffix("Request")
        self.calls.append(method)
        self.requests[method].append(request)
        self.metadata[method] = dict(context.invocation_metadata())
        assert context.time_remaining() is not None, f"{method} without a deadline"
        if hasattr(request, "request_id"):
            assert request.request_id, f"{method} without a request_id"
        self.called[method].set()
        await self._fault(method, context, after=False)
        return method

    async def end(self, method, context):
        self.sent[method].set()
        await self._fault(method, context, after=True)

    async def _fault(self, method, context, *, after):
        if not self.faults[method, after]:
            return
        fault = self.faults[method, after].pop(0)
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "lost":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if isinstance(fault, asyncio.Event):
            await fault.wait()
            return
        raise fault

    def add_vm(self, name, state=vmm_pb2.VM_STATE_CREATED, number=None):
        """Put a VM there, with a port."""
        number = number or len(self.vms) + 2
        vm = vmm_pb2.Vm(id="abcdefghijkl" + "abcdefghijklmnopqrstuvwxyz"[number % 26], name=name)
        vm.state = state
        vm.spec.image = "debian"
        vm.create_time.GetCurrentTime()
        vm.history.add(to=vmm_pb2.VM_STATE_CREATED, reason="asked for").time.GetCurrentTime()
        port = self.wires.attach(vm.id, number, name)
        vm.spec.network.CopyFrom(of_port(port))
        self.vms[vm.id] = vm
        return vm

    @property
    def ports(self):
        """The ports by the id of their VM."""
        return self.wires.ports

    def tell(self, event):
        """Tell who watches VMs of a change."""
        for queue in self.watchers:
            queue.put_nowait(event)

    def find(self, ref):
        for vm in self.vms.values():
            if ref in (vm.id, vm.name):
                return vm
        raise NotFound("VM_NOT_FOUND", f"there is no VM {ref!r}")

    def is_live(self, vm):
        return vm.state in LIVE


class FakeGateway(gateway_pb2_grpc.GuestServiceServicer):
    def __init__(self, fakes):
        self.fakes = fakes

    def live(self, ref):
        vm = self.fakes.find(ref)
        if not self.fakes.is_live(vm):
            raise FailedPrecondition("VM_NOT_LIVE", f"{vm.name} is not live")
        return vm

    async def GetGuest(self, request, context):
        await self.fakes.begin(request, context)
        vm = self.live(request.vm)
        if request.wait_ready:
            vm.state = vmm_pb2.VM_STATE_READY
        ready = vm.state == vmm_pb2.VM_STATE_READY
        guest = gateway_pb2.Guest(vm_id=vm.id, kernel="6.1.0", os="Debian \x1b[31mred")
        guest.state = gateway_pb2.GUEST_STATE_READY if ready else gateway_pb2.GUEST_STATE_CONNECTING
        guest.reason = "" if ready else "no hello yet"
        return gateway_pb2.GetGuestResponse(guest=guest)

    async def Exec(self, request, context):
        await self.fakes.begin(request, context)
        self.live(request.vm)
        match list(request.argv):
            case ["cat"]:
                yield gateway_pb2.ExecResponse(stdout=request.stdin)
            case ["talk"]:
                for number in range(3):
                    yield gateway_pb2.ExecResponse(stdout=b"out\x00\xff" + b"%d\n" % number)
                    yield gateway_pb2.ExecResponse(stderr=b"err%d\n" % number)
            case ["flood"]:
                for _ in range(64):
                    yield gateway_pb2.ExecResponse(stdout=bytes(65536))
            case ["sleep"]:
                yield gateway_pb2.ExecResponse(stdout=b"begun\n")
                try:
                    await asyncio.Event().wait()
                finally:
                    self.fakes.killed.set()
            case ["vanish"]:
                return
            case ["exit", code]:
                yield gateway_pb2.ExecResponse(exit=gateway_pb2.ExecExit(code=int(code)))
                return
            case [name, *_]:
                raise NotFound("COMMAND_NOT_FOUND", f"there is no program {name!r}")
        yield gateway_pb2.ExecResponse(exit=gateway_pb2.ExecExit(code=0))

    async def ReadFile(self, request, context):
        method = await self.fakes.begin(request, context)
        self.live(request.vm)
        if request.path not in self.fakes.files:
            raise NotFound("FILE_NOT_FOUND", f"there is no file {request.path}")
        mode, data = self.fakes.files[request.path]
        size = self.fakes.announced or len(data)
        yield gateway_pb2.ReadFileResponse(info=gateway_pb2.FileInfo(size=size, mode=mode))
        for start in range(0, len(data), 100_000):
            yield gateway_pb2.ReadFileResponse(data=data[start : start + 100_000])
            await self.fakes.end(method, context)

    async def WriteFile(self, requests, context):
        target, data = None, b""
        async for request in requests:
            if target is None:
                method = await self.fakes.begin(request, context)
                target = request.target
                self.live(target.vm)
            data += request.data
            assert len(request.data) <= 1024 * 1024
            if request.data:
                await self.fakes.end(method, context)
        mode = target.mode if target.HasField("mode") else 0o644
        self.fakes.files[target.path] = (mode, data)
        return gateway_pb2.WriteFileResponse(size=len(data))

    async def ConnectMcp(self, requests, context):
        first = True
        async for request in requests:
            if first:
                method = await self.fakes.begin(request, context)
                self.live(request.vm)
                first = False
            if request.message:
                await self.fakes.end(method, context)
                answer = await self.mcp(json.loads(request.message))
                if self.fakes.hangs_up:
                    return
                if answer is not None:
                    yield gateway_pb2.ConnectMcpResponse(message=answer)

    async def mcp(self, message):
        if "id" not in message:
            return None
        params = message.get("params", {})
        match message["method"]:
            case "initialize":
                result = {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fake", "version": "0"},
                }
            case "tools/list":
                result = {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
            case "tools/call":
                if params["name"] == "never":
                    return None
                if params["name"] == "slow":
                    await self.fakes.release.wait()
                result = {"content": [{"type": "text", "text": params["arguments"]["text"]}]}
            case other:
                error = {"code": -32601, "message": f"no method {other}"}
                return json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode()
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        # Line breaks between tokens, as a server may well send them.
        return json.dumps(answer, indent=1).encode()


def add_vmm(servicer, server):
    vmm_pb2_grpc.add_VmServiceServicer_to_server(servicer, server)
    settings = FakeSettings(servicer.fakes)
    settings_pb2_grpc.add_SettingsServiceServicer_to_server(settings, server)


SERVICERS = {
    "vmm": (FakeVmm, add_vmm),
    "netd": (FakeNetd, netd_pb2_grpc.add_NetworkServiceServicer_to_server),
    "gateway": (FakeGateway, gateway_pb2_grpc.add_GuestServiceServicer_to_server),
    "dns": (lambda fakes: None, lambda servicer, server: None),  # it serves its health only
}


class Served:
    """The servers, each of which the test may stop."""

    def __init__(self, fakes):
        self.fakes = fakes
        self.servers = {}
        self.health = {}

    async def start(self, name, listen):
        server = grpc.aio.server(interceptors=[AroundCalls(errors)], options=OPTIONS)
        servicer, add = SERVICERS[name]
        add(servicer(self.fakes), server)
        self.health[name] = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health[name], server)
        await self.health[name].set("", health_pb2.HealthCheckResponse.SERVING)
        listen(server)
        await server.start()
        self.servers[name] = server

    async def stop(self, name):
        await self.servers.pop(name).stop(None)


@asynccontextmanager
async def serve(fakes, listen):
    """Serve the fakes; `listen(name, server)` gives each its port."""
    served = Served(fakes)
    try:
        for name in SERVICERS:
            await served.start(name, lambda server, name=name: listen(name, server))
        yield served
    finally:
        for name in list(served.servers):
            await served.stop(name)
