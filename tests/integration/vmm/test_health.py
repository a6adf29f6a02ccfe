"""Health and metrics of vmm as a process, as an on-call engineer's tools ask for them."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from vmm_process import SECONDS, hosting

NAMES = ("store", "disk", "kvm", "systemd", "images")


@pytest.fixture
async def service(short_path):
    async with hosting(short_path) as service:
        await service.start()
        yield service


async def statuses(service, names):
    """Return whether each name serves, by grpc.health.v1.Health."""
    async with grpc.aio.insecure_channel(f"unix:{service.directory}/server/vmm.sock") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        found = {}
        for name in names:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(service=name), timeout=SECONDS, wait_for_ready=True
            )
            found[name] = answer.status == health_pb2.HealthCheckResponse.SERVING
        return found


async def subsystems(service):
    """Return whether each subsystem works, and what is told of those that do not."""
    info = await service.call("GetInfo")
    assert [one.name for one in info.subsystems] == list(NAMES)
    return {one.name: one.ok or one.detail for one in info.subsystems}


async def scrape(service):
    """Return the samples of a scrape by name: pairs of labels and value."""
    path = service.directory / "server/metrics.sock"
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 OK"), head
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if "otel" not in key}
            found.setdefault(sample.name, []).append((labels, sample.value))
    return found


async def test_grpc_health_and_info_agree(service):
    (service.directory / "guest/runtime.img").unlink()
    told = await subsystems(service)
    # Whether this machine has KVM is not ours to say.
    assert {name for name in NAMES if told[name] is True} >= {"store", "disk", "systemd"}
    assert "runtime.img is missing" in told["images"]
    names = [f"nexus.vmm.{name}" for name in ("store", "disk", "systemd")]
    assert all((await statuses(service, ["", "nexus.vmm.v1.VmService", *names])).values())


async def test_what_is_broken_before_the_start_is_told_from_the_first_call_on(service):
    await service.kill()
    (service.directory / "guest/images/debian.img").unlink()
    await service.start()
    assert await statuses(service, ["", "nexus.vmm.images"]) == {
        "": True,
        "nexus.vmm.images": False,
    }
    assert "there is no image 'debian'" in (await subsystems(service))["images"]


async def test_what_is_scraped(service):
    await service.call("CreateVm", name="hello")
    vm = (await service.call("StartVm", vm="hello")).vm
    found = await scrape(service)
    assert found["nexus_vmm_vms"] == [({"state": "running"}, 1.0)]
    assert found["nexus_vmm_vms_unmeasured"] == [({}, 0.0)]
    # The stand-in for systemd makes no cgroup; the disk is real.
    ((labels, taken),) = found["nexus_vmm_vm_disk_bytes"]
    assert labels == {"vm_id": vm.id, "name": "hello"}
    assert taken == service.places.disk(vm.id).stat().st_blocks * 512
    stages = {labels["stage"] for labels, _ in found["nexus_vmm_start_duration_seconds_count"]}
    assert stages == {"prepare", "launch", "configure", "boot", "total"}
    healthy = {labels["subsystem"]: value for labels, value in found["nexus_vmm_healthy"]}
    assert healthy.keys() == set(NAMES)
    assert healthy["store"] == 1.0
    await service.call("StopVm", vm="hello", grace_seconds=0)
    found = await scrape(service)
    assert found["nexus_vmm_stops_total"] == [({"rung": "sigkill"}, 1.0)]
    assert found["nexus_vmm_exits_total"] == [({"cause": "stop"}, 1.0)]
