"""Following vmm over streams that break: what is told again, and what is not."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import grpc
import pytest

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_rpc.vms import Lost, follow

MISSED = pb.WatchVmsResponse(missed=True)


def synced(revision):
    return pb.WatchVmsResponse(synced=True, revision=revision)


def vm(name, revision=0):
    return pb.WatchVmsResponse(vm=pb.Vm(id=name), revision=revision)


class Scripted(vmm_pb2_grpc.VmServiceServicer):
    """Tells one script to each watch, and ends it."""

    def __init__(self, *scripts):
        self.scripts = list(scripts)
        self.asked = []

    async def WatchVms(self, request, context):
        self.asked.append(request.after_revision)
        for event in self.scripts.pop(0):
            yield event


@asynccontextmanager
async def serving(servicer, path):
    server = grpc.aio.server()
    vmm_pb2_grpc.add_VmServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@pytest.fixture
def heard(tmp_path):
    """Follow scripts until all are told; return what was asked and what was heard."""

    async def heard(*scripts):
        path = tmp_path / "vmm.sock"
        vmm = Scripted(*scripts)
        events = []
        async with (
            asyncio.timeout(20),
            serving(vmm, path),
            aclosing(follow(f"unix:{path}")) as told,
        ):
            async for event in told:
                events.append("lost" if isinstance(event, Lost) else event)
                if not vmm.scripts and events[-1] == "lost":
                    return vmm.asked, events
        return None

    return heard


async def test_a_stream_carries_on_where_the_one_before_broke(heard):
    first = [vm("a"), vm("b"), synced(7), vm("a", 8), vm("b", 11)]
    second = [vm("a", 12), synced(12)]
    third = [synced(12), vm("b", 13)]
    asked, events = await heard(first, second, third)
    assert asked == [0, 11, 12]
    assert events == [*first, "lost", *second, "lost", *third, "lost"]


async def test_a_present_that_broke_off_is_told_anew(heard):
    asked, events = await heard([vm("a")], [vm("b"), synced(3)])
    assert asked == [0, 0]
    assert events == [vm("a"), "lost", MISSED, vm("b"), synced(3), "lost"]


async def test_nothing_is_missed_before_anything_was_told(heard):
    asked, events = await heard([], [vm("a"), synced(3)])
    assert asked == [0, 0]
    assert events == ["lost", vm("a"), synced(3), "lost"]


async def test_who_missed_events_is_told_the_present(heard):
    first = [vm("a"), synced(5)]
    second = [MISSED, vm("b"), synced(90)]
    asked, events = await heard(first, second, [synced(90)])
    assert asked == [0, 5, 90]
    assert events == [*first, "lost", *second, "lost", synced(90), "lost"]


async def test_a_present_that_broke_off_after_missed_events_is_told_anew(heard):
    first = [vm("a"), synced(5)]
    asked, events = await heard(first, [MISSED, vm("b")], [vm("b"), synced(90)])
    assert asked == [0, 5, 0]
    assert events == [*first, "lost", MISSED, vm("b"), "lost", MISSED, vm("b"), synced(90), "lost"]


async def test_vmm_that_is_away_for_long_is_lost_once(tmp_path):
    path = tmp_path / "vmm.sock"
    async with asyncio.timeout(20), aclosing(follow(f"unix:{path}")) as told:
        assert isinstance(await anext(told), Lost)
        coming = asyncio.create_task(anext(told))
        done, _ = await asyncio.wait({coming}, timeout=0.7)  # two tries more
        assert not done
        async with serving(Scripted([synced(1)]), path):
            assert await coming == synced(1)
