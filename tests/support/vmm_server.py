"""vmm's API over a real gRPC server in this process, with fakes behind the driver's port."""

import asyncio
import contextlib

import grpc
import pytest
import vmm_driver
import vmm_guest

from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.interceptors import AroundCalls, errors
from nexus_vmm.api.servicer import VmServicer
from nexus_vmm.config.store import SettingStore
from nexus_vmm.console.consoles import Consoles
from nexus_vmm.limits.admission import Admission
from nexus_vmm.operations.balloon import Balloons
from nexus_vmm.operations.supervisor import Supervisor
from nexus_vmm.operations.work import Work
from nexus_vmm.records.store import Store
from nexus_vmm.records.watch import Hub
from nexus_vmm.reports.health import Health, Unwell


def saying(host, name):
    """Return a check that says what `host.health` has."""

    async def check():
        if isinstance(host.health[name], Exception):
            raise host.health[name]
        return host.health[name]

    return check


@contextlib.asynccontextmanager
async def serving(directory, host):
    """Serve the VMs of `host` below `directory`; yields a stub that shows what is behind it."""
    async with asyncio.TaskGroup() as tasks:
        hub = Hub()
        store = Store(host.database, hub, Admission(host.room))
        await store.fill_hub()
        driver, work = vmm_driver.FakeDriver(host.world), Work(tasks)
        supervisor = Supervisor(store, driver, work)
        places = vmm_guest.places(directory)
        assets = vmm_guest.guest_files(directory / "guest")
        host.health = {"store": "written", "kvm": Unwell("no KVM")}
        health = Health({name: saying(host, name) for name in host.health})
        served = Consoles(places)
        server = grpc.aio.server(interceptors=[AroundCalls(errors)])
        vmm_pb2_grpc.add_VmServiceServicer_to_server(
            VmServicer(
                store,
                hub,
                supervisor,
                assets,
                places,
                settings=SettingStore(host.database),
                balloons=Balloons(store, driver, work),
                consoles=served,
                health=health,
            ),
            server,
        )
        server.add_insecure_port(f"unix:{directory}/vmm.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{directory}/vmm.sock") as channel:
            stub = vmm_pb2_grpc.VmServiceStub(channel)
            stub.places = places
            stub.hub = hub
            stub.consoles = served
            yield stub
        await server.stop(None)
        for vm_id in list(host.world.processes):
            host.world.end(vm_id)


async def refusal(call):
    """Return the domain error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (everything(call) if hasattr(call, "__aiter__") else call)
    return from_rpc_error(caught.value)


async def everything(call):
    """Return all that a stream brings."""
    return [answer async for answer in call]
