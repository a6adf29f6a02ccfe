"""What stands around the gateway in its tests: vmm, and Firecracker's vsock socket."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import grpc
import guest_agent

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_guest.wire import Decoder, Kind, encode, encode_message
from nexus_rpc.errors import FailedPrecondition, NotFound
from nexus_rpc.interceptors import AroundCalls, errors

LIVE = range(pb.VM_STATE_RUNNING, pb.VM_STATE_UNREACHABLE + 1)


def make_vm(name="hello", *, vm_id="aaaaaaaaaaaaa", path="/nowhere", **fields):
    fields = {"state": pb.VM_STATE_RUNNING, "boot": "boot-1"} | fields
    return pb.Vm(id=vm_id, name=name, vsock_path=str(path), **fields)


AFTER = {
    pb.GUEST_EVENT_HELLO: ({pb.VM_STATE_RUNNING, pb.VM_STATE_UNREACHABLE}, pb.VM_STATE_ONLINE),
    pb.GUEST_EVENT_PROVISIONING: ({pb.VM_STATE_ONLINE}, pb.VM_STATE_PROVISIONING),
    pb.GUEST_EVENT_READY: ({pb.VM_STATE_PROVISIONING}, pb.VM_STATE_READY),
    pb.GUEST_EVENT_LOST: (set(LIVE), pb.VM_STATE_UNREACHABLE),
}


class FakeVmm(vmm_pb2_grpc.VmServiceServicer):
    """Keeps VMs as vmm does, as far as the gateway can tell."""

    def __init__(self):
        self.vms = {}
        self.watchers = set()
        self.reports = []
        self.changes = []
        self.forgotten = 0
        self.touches = asyncio.Queue()
        self.answering = asyncio.Event()
        self.answering.set()

    def put(self, vm):
        self.vms[vm.id] = vm
        self._tell(pb.WatchVmsResponse(vm=vm))

    def change(self, vm_id, **fields):
        vm = pb.Vm()
        vm.CopyFrom(self.vms[vm_id])
        vm.MergeFrom(pb.Vm(**fields))
        self.put(vm)

    def delete(self, vm_id):
        del self.vms[vm_id]
        self._tell(pb.WatchVmsResponse(deleted_vm_id=vm_id))

    def _tell(self, event):
        self.changes.append(event)
        event.revision = len(self.changes)
        for queue in self.watchers:
            queue.put_nowait(event)

    async def until(self, vm_id, state):
        queue = asyncio.Queue()
        self.watchers.add(queue)
        try:
            async with asyncio.timeout(30):
                while self.vms[vm_id].state != state:
                    await queue.get()
        finally:
            self.watchers.remove(queue)

    def _find(self, ref):
        for vm in self.vms.values():
            if ref in (vm.id, vm.name):
                return vm
        raise NotFound("VM_NOT_FOUND", f"no {ref}")

    async def WatchVms(self, request, context):
        queue = asyncio.Queue()
        self.watchers.add(queue)
        try:
            known, last = request.after_revision, len(self.changes)
            if known and self.forgotten <= known <= last:
                for event in self.changes[known:last]:
                    yield event
            else:
                if known:
                    yield pb.WatchVmsResponse(missed=True)
                for vm in tuple(self.vms.values()):
                    yield pb.WatchVmsResponse(vm=vm)
            yield pb.WatchVmsResponse(synced=True, revision=last)
            while True:
                yield await queue.get()
        finally:
            self.watchers.remove(queue)

    async def GetVm(self, request, context):
        return pb.GetVmResponse(vm=self._find(request.vm))

    async def TouchVm(self, request, context):
        self._find(request.vm)
        self.touches.put_nowait(request.vm)
        await self.answering.wait()
        return pb.TouchVmResponse()

    async def ReportGuest(self, request, context):
        vm = self._find(request.vm)
        if vm.boot != request.boot:
            raise FailedPrecondition("STALE_BOOT", "another boot")
        if vm.state not in LIVE:
            raise FailedPrecondition("VM_STATE", "not live")
        self.reports.append(request.event)
        before, after = AFTER[request.event]
        if vm.state in before and vm.state != after:
            self.change(vm.id, state=after, state_reason=request.reason)
        return pb.ReportGuestResponse(vm=self.vms[vm.id])


@asynccontextmanager
async def serving_vmm(vmm, path):
    server = grpc.aio.server(interceptors=[AroundCalls(errors)])
    vmm_pb2_grpc.add_VmServiceServicer_to_server(vmm, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


class GuestSide:
    """The guest's end of one connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self._decoder = Decoder()
        self._frames = []

    async def receive(self):
        """Return the next frame, or None once the gateway has closed."""
        while not self._frames:
            data = await self.reader.read(1 << 16)
            if not data:
                return None
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def frame(self, kind, payload=b""):
        await self.send(encode(kind, payload))

    async def message(self, kind, **message):
        await self.send(encode_message(kind, message))

    async def closed(self):
        """Return once the gateway has closed."""
        while await self.receive() is not None:
            pass


class FakeGuest:
    """Firecracker's socket, and behind each port a script `async def (GuestSide)`."""

    def __init__(self, path, **ports):
        self.path = path
        self.ports = {int(name.removeprefix("port")): script for name, script in ports.items()}
        self.arrivals = asyncio.Queue()
        self._tasks = set()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.arrivals.put_nowait(None)
        try:
            line = (await reader.readline()).decode()
            # Empty: whoever dialled gave up at once.
            script = self.ports.get(int(line.removeprefix("CONNECT "))) if line else None
            if script is not None:
                writer.write(b"OK 1073741824\n")
                await script(GuestSide(reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(asyncio.current_task())

    async def __aenter__(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn


async def agreeable(guest):
    """A control port that answers everything."""
    while (request := await guest.receive()) is not None:
        match request.message["op"]:
            case "hello":
                await guest.message(
                    Kind.REPLY, boot_id="b", agent_version="0.1.0", kernel="6.1.0", os="Debian"
                )
            case "configure":
                await guest.message(Kind.REPLY, warnings=["no DNS"])
            case _:
                await guest.message(Kind.REPLY)


@asynccontextmanager
async def real_agent(directory):
    """The real guest agent in a process, behind a stand-in for Firecracker's socket.

    Yields the path of the socket, and the process.
    """
    process = guest_agent.start(directory)
    try:
        path = directory / "agent.sock"
        async with FakeGuest(path) as firecracker:
            for port in (100, 200, 300):
                firecracker.ports[port] = _forward(directory / f"{port}.sock")
            yield path, process
    finally:
        process.kill()
        process.wait()


def _forward(path):
    async def forward(near):
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 16)
        pumps = [
            asyncio.create_task(_pump(near.reader, writer)),
            asyncio.create_task(_pump(reader, near.writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            # What is already written must arrive before the close does.
            with contextlib.suppress(ConnectionError):
                await near.writer.drain()
                near.writer.close()
                await near.writer.wait_closed()
        finally:
            for pump in pumps:
                pump.cancel()
            writer.transport.abort()

    return forward


async def _pump(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
