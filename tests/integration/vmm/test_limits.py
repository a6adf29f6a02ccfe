"""Settings and budgets of vmm as a process: they outlive kill -9, and calls race for the room."""

import asyncio

import grpc
import pytest
from vmm_process import SECONDS, hosting

from nexus.vmm.v1 import settings_pb2, settings_pb2_grpc
from nexus_rpc.errors import NexusError, ResourceExhausted


@pytest.fixture
async def service(short_path):
    async with hosting(short_path) as service:
        await service.start()
        yield service


async def settings(service, method, **fields):
    """Call SettingsService as soon as it answers."""
    request = getattr(settings_pb2, f"{method}Request")(**fields)
    async with grpc.aio.insecure_channel(
        f"unix:{service.directory}/server/vmm.sock", [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = settings_pb2_grpc.SettingsServiceStub(channel)
        return await getattr(stub, method)(request, timeout=SECONDS, wait_for_ready=True)


async def test_what_was_set_holds_after_kill_9_and_can_be_brought_back(service):
    await settings(service, "UpdateSettings", values={"default.memory_mib": "256"})
    await service.kill()
    await service.start()
    assert (await service.call("CreateVm", name="one")).vm.spec.memory_mib == 256
    await settings(service, "RollbackSettings", version=0)
    assert (await service.call("CreateVm", name="two")).vm.spec.memory_mib == 128
    versions = (await settings(service, "ListSettingVersions")).versions
    assert [one.version for one in versions] == [2, 1]


async def test_budgets_are_those_of_this_host_and_count_what_lives_on(service):
    await service.call("CreateVm", name="one")
    await service.call("StartVm", vm="one")
    await service.kill()
    await service.start()
    budgets = {one.what: one for one in (await service.call("GetCapacity")).budgets}
    assert {what: one.used for what, one in budgets.items()} == {
        "memory_mib": 128,
        "vcpus": 1,
        "disk_mib": 2048,
        "vms": 1,
    }
    assert all(one.limit > one.used for one in budgets.values())


async def test_starts_at_once_share_the_room_there_is(service):
    await settings(service, "UpdateSettings", values={"capacity.memory_mib": "300"})
    names = [f"vm{number}" for number in range(6)]
    for name in names:
        await service.call("CreateVm", name=name)
    answers = await asyncio.gather(
        *(service.call("StartVm", vm=name) for name in names), return_exceptions=True
    )
    refusals = [one for one in answers if isinstance(one, NexusError)]
    assert [type(one) for one in refusals] == [ResourceExhausted] * 4
    assert refusals[0].metadata == {
        "what": "memory_mib",
        "asked": "128",
        "free": "44",
        "limit": "300",
    }
    assert len(service.model.processes) == 2


async def test_the_balloon_of_a_real_process_is_set(service):
    await service.call("CreateVm", name="one", spec={"balloon": True})
    await service.call("StartVm", vm="one")
    for amount in (64, 0):
        await service.call("SetBalloon", vm="one", amount_mib=amount)
