"""What a server says in grpc.health.v1.Health."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2

from nexus_rpc import health
from nexus_rpc.health import Health

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def status(told, name):
    request = health_pb2.HealthCheckRequest(service=name)
    return (await told.servicer.Check(request, None)).status


class Source:
    """Says what it is told to."""

    def __init__(self, **well):
        self.well = {name.replace("_", "."): ok for name, ok in well.items()}
        self.asked = asyncio.Event()

    async def __call__(self):
        self.asked.set()
        return self.well


async def test_what_no_source_tells_of_serves():
    told = Health(["one", "two"], [])
    await told.tell()
    assert {await status(told, name) for name in ("", "one", "two")} == {SERVING}


@pytest.mark.parametrize(
    ("well", "whole"),
    [
        ({"one": True, "one_disk": False}, SERVING),
        ({"one": False, "one_disk": True}, NOT_SERVING),
    ],
)
async def test_the_server_serves_as_long_as_its_services_do(well, whole):
    told = Health(["one", "two"], [Source(**well)])
    await told.tell()
    assert await status(told, "") == whole
    assert await status(told, "two") == SERVING
    for name, ok in well.items():
        assert await status(told, name.replace("_", ".")) == (SERVING if ok else NOT_SERVING)


async def test_it_is_told_again_until_the_stop(monkeypatch):
    monkeypatch.setattr(health, "EVERY", 0.0)
    source = Source(one=True)
    told = Health(["one"], [source])
    await told.tell()
    source.well["one"] = False
    keeping = asyncio.create_task(told.keep_telling())
    for _ in range(2):
        source.asked.clear()
        await asyncio.wait_for(source.asked.wait(), 5)
    assert await status(told, "one") == NOT_SERVING
    source.well["one"] = True
    await told.stop()
    for _ in range(2):
        source.asked.clear()
        await asyncio.wait_for(source.asked.wait(), 5)
    assert await status(told, "one") == NOT_SERVING
    keeping.cancel()
    await asyncio.wait({keeping})
