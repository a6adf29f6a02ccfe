"""The gateway's following of VMs and guests, over a stand-in for vmm, and what it found."""

import asyncio
from contextlib import asynccontextmanager

from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_gateway.guest import Timing
from nexus_gateway.guests import Guests
from nexus_gateway.notice import Notice
from nexus_gateway.vmm import GrpcVmm
from nexus_gateway.vms import Vms
from nexus_gateway.vsock import dial
from nexus_rpc.channel import connect
from nexus_rpc.vms import follow

CALM = Timing(ready=60, silence=30, ping=0.05, attempt=30)
HASTY = Timing(ready=0.6, silence=0.3, ping=0.05, attempt=0.2)
VM = "a" * 13


class World:
    def __init__(self, vmm, guests, vms, changed):
        self.vmm, self.guests, self.vms, self.changed = vmm, guests, vms, changed

    def guest(self):
        return self.guests.of(self.vms.get(VM))

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                await self.changed.wait()


@asynccontextmanager
async def following(vmm, path, *, dial=dial, timing=CALM):
    async with connect(f"unix:{path}") as channel, asyncio.TaskGroup() as tasks:
        changed = Notice()
        port = GrpcVmm(vmm_pb2_grpc.VmServiceStub(channel))
        vms = Vms(port, changed)
        guests = Guests(vms, port, dial, timing, changed)
        running = [
            tasks.create_task(vms.follow(follow(f"unix:{path}"))),
            tasks.create_task(guests.run()),
        ]
        try:
            yield World(vmm, guests, vms, changed)
        finally:
            for task in running:
                task.cancel()
