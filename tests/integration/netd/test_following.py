"""netd behind a vmm that it follows over gRPC: which ports it lets go of."""

import asyncio

import pytest
from fake_kernel import FakeKernel
from fake_services import Fakes, Served
from netd_world import attach, default, over

from nexus_netd import claims
from nexus_netd.follow import Follower
from nexus_netd.records.schema import MIGRATIONS
from nexus_rpc.database import Database
from nexus_rpc.ids import new_vm_id
from nexus_rpc.vms import follow

SECONDS = 30


@pytest.fixture
async def netd(tmp_path):
    database = await Database.open(tmp_path / "netd.db", MIGRATIONS)
    yield await over(FakeKernel(), database, default())
    await database.close()


async def _released(happenings):
    """Return the VM whose port is the next to be released."""
    async with asyncio.timeout(SECONDS):
        while (happening := await anext(happenings)).what != "detached":
            pass
    return happening.vm_id


async def test_ports_that_vmm_knows_no_vm_of_are_released(netd, tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "CLAIM_SECONDS", 0.3)
    target = f"unix:{tmp_path}/vmm.sock"
    fakes = Fakes()
    vmm = Served(fakes)

    async def start():
        await vmm.start("vmm", lambda server: server.add_insecure_port(target))

    vm, other = fakes.add_vm("hello").id, fakes.add_vm("other")
    del fakes.vms[other.id]
    alone, later = new_vm_id(), new_vm_id()
    await attach(netd, vm)
    await attach(netd, alone)
    with netd.state.feed.watch() as happenings:
        await start()
        following = asyncio.create_task(Follower(netd).run(follow(target)))
        try:
            assert await _released(happenings) == alone
            assert netd.view().ports[vm].vm_name == "hello"
            await vmm.stop("vmm")
            await attach(netd, other.id)
            await attach(netd, later)
            fakes.vms[other.id] = other
            await start()
            assert await _released(happenings) == later
            assert netd.view().ports.keys() == {vm, other.id}
        finally:
            following.cancel()
            await asyncio.wait([following])
            await vmm.stop("vmm")
