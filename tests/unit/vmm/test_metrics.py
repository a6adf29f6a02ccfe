"""What vmm measures, read the way an exporter reads it."""

import pytest
import vmm_guest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from nexus_vmm import metrics
from nexus_vmm.records.changes import Gone
from nexus_vmm.records.watch import Hub
from nexus_vmm.reports.health import Health, Unwell
from nexus_vmm.states import State


@pytest.fixture
def reader(monkeypatch):
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(metrics, "_meter", provider.get_meter("test"))
    yield reader
    provider.shutdown()


def test_vms_are_counted_by_state(reader):
    hub = Hub()
    metrics.count_vms(hub)
    for vm_id, state in (("a", State.READY), ("b", State.READY), ("c", State.CRASHED)):
        hub.publish(vmm_guest.vm(vm_id * 13, vm_id, state=state))
    hub.publish(Gone("b" * 13))
    (resource,) = reader.get_metrics_data().resource_metrics
    (gauge,) = resource.scope_metrics[0].metrics
    assert gauge.name == "nexus.vmm.vms"
    counted = {point.attributes["state"]: point.value for point in gauge.data.data_points}
    assert counted == {"ready": 1, "crashed": 1}


def test_a_stage_that_fails_is_not_measured():
    with pytest.raises(OSError, match="full"), metrics.stage("prepare"):
        raise OSError("full")


async def test_subsystems_are_told_as_they_were_last_seen(reader):
    async def well():
        return "fine"

    async def broken():
        raise Unwell("no KVM")

    health = Health({"store": well, "kvm": broken})
    metrics.tell_health(health)
    assert not reader.get_metrics_data()
    await health.now()
    (resource,) = reader.get_metrics_data().resource_metrics
    (gauge,) = resource.scope_metrics[0].metrics
    assert gauge.name == "nexus.vmm.healthy"
    told = {point.attributes["subsystem"]: point.value for point in gauge.data.data_points}
    assert told == {"store": 1, "kvm": 0}
