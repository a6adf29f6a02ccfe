"""The gateway's part towards vmm, with a real vmm: following it, uses, and stops."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest
import vmm_process

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_gateway.notice import Notice
from nexus_gateway.vmm import GrpcVmm
from nexus_gateway.vms import Vms
from nexus_rpc.channel import connect
from nexus_rpc.errors import NotFound
from nexus_rpc.vms import Lost, follow

SECONDS = 30
IDLE = pb.VmSpec(ttl=pb.TimeToLive(idle_seconds=3600))


@pytest.fixture
async def service(short_path):
    async with vmm_process.hosting(short_path) as service:
        await service.start()
        yield service


class Followed:
    """What vmm has told, and the gateway's mirror of it."""

    def __init__(self, vms, changed):
        self.vms = vms
        self.changed = changed
        self.events = []

    async def until(self, condition):
        async with asyncio.timeout(SECONDS):
            while not condition():
                await self.changed.wait()

    def named(self, name):
        return self.vms.look_up(name)


@asynccontextmanager
async def following(service):
    target = f"unix:{service.directory}/server/vmm.sock"
    changed = Notice()
    async with connect(target) as channel:
        vmm = GrpcVmm(vmm_pb2_grpc.VmServiceStub(channel))
        followed = Followed(Vms(vmm, changed), changed)

        async def take():
            async with aclosing(follow(target)) as events:
                async for event in events:
                    followed.events.append(event)
                    followed.vms.apply(event)
                    changed.post()

        task = asyncio.create_task(take())
        try:
            yield followed, vmm
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()


async def test_a_vmm_that_was_killed_is_followed_from_where_it_was(service):
    for name in ("one", "two"):
        await service.call("CreateVm", name=name)
    async with following(service) as (followed, _):
        await followed.until(lambda: followed.vms._synced)
        await service.call("CreateVm", name="three")
        await followed.until(lambda: followed.named("three"))
        await service.kill()
        await followed.until(lambda: isinstance(followed.events[-1], Lost))
        told = len(followed.events)
        await service.start()
        await followed.until(lambda: followed.vms._synced)
        await service.call("DeleteVm", vm="one")
        await service.call("CreateVm", name="four")
        await followed.until(lambda: followed.named("four"))
        assert {vm.name for vm in followed.vms} == {"two", "three", "four"}
        kinds = [event.WhichOneof("event") for event in followed.events[told:]]
        assert kinds[0] == "synced", "what has not changed is not told again"
        assert {"missed", "vm"} & set(kinds) == {"vm"}
        assert all(event.vm.name in {"one", "four", ""} for event in followed.events[told:])


async def test_a_use_moves_the_end_of_an_idle_vm(service):
    await service.call("CreateVm", name="idle", spec=IDLE)
    vm = (await service.call("StartVm", vm="idle")).vm
    async with following(service) as (followed, vmm):
        await followed.until(lambda: followed.named("idle"))
        await vmm.touch(vm.id)
        with pytest.raises(NotFound):
            await vmm.touch("b" * 13)
    moved = (await service.call("TouchVm", vm="idle")).expire_time
    assert moved.ToNanoseconds() > vm.expire_time.ToNanoseconds()
    await service.call("StopVm", vm="idle", grace_seconds=0)


async def test_a_stop_is_told_before_the_process_ends(service):
    await service.call("CreateVm", name="going")
    await service.call("StartVm", vm="going")
    async with following(service) as (followed, _):
        await followed.until(lambda: followed.vms._synced)
        await service.call("StopVm", vm="going", grace_seconds=1)
        await followed.until(lambda: followed.named("going").state == pb.VM_STATE_STOPPED)
        steps = [
            (event.vm.state in vmm_process.LIVE, event.vm.stopping)
            for event in followed.events
            if event.WhichOneof("event") == "vm"
        ]
        assert steps[0] == (True, False)
        assert (True, True) in steps
        assert steps[-1] == (False, False)
