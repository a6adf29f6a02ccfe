"""The figures of VMs, as Prometheus gets them."""

import logging
import time
from dataclasses import replace

import pytest
import vmm_guest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from vmm_cgroups import USAGE, Kernel

from nexus_rpc.ids import new_vm_id
from nexus_vmm.records.watch import Hub
from nexus_vmm.reports import stats
from nexus_vmm.reports.stats import FIGURES, PREFIX, UNMEASURED, Figures
from nexus_vmm.states import State


@pytest.fixture
def hub():
    return Hub()


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path, vmm_guest.places(tmp_path))


@pytest.fixture
def add(hub, kernel):
    """Let there be VMs, each with what the kernel counts of it."""

    def add(name, state=State.READY):
        number = len(hub.present()) + 1
        network = replace(vmm_guest.NETWORK, tap=f"nexus{number}")
        spec = vmm_guest.spec(network=network)
        vm = vmm_guest.vm(new_vm_id(), name, seq=number, state=state, spec=spec)
        kernel.add(vm)
        hub.publish(vm)
        return vm

    return add


def scrape():
    """Return the samples of VMs by name: pairs of labels and value."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(REGISTRY).decode()):
        for sample in family.samples:
            if sample.name.startswith((PREFIX, UNMEASURED)):
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_each_live_vm_is_told_of(hub, kernel, add):
    vm = add("hello")
    for state in State:
        if state not in stats.LIVE and state is not State.DELETED:
            add(state.value, state)
    with Figures(hub, kernel.meter).served():
        found = scrape()
    assert found.pop(UNMEASURED) == [({}, 0.0)]
    told = {}
    for name, samples in found.items():
        for labels, value in samples:
            assert (labels.pop("vm_id"), labels.pop("name")) == (vm.id, "hello")
            key = name.removeprefix(PREFIX).removesuffix("_total")
            told[key, labels.pop("direction", "")] = value
            assert not labels
    assert told == USAGE
    assert {name for name, _ in told} == FIGURES.keys()
    assert scrape() == {}, "nothing is told any more"


def test_figures_are_read_again_after_5_seconds(hub, kernel, add, monkeypatch):
    vm = add("hello")
    with Figures(hub, kernel.meter).served():
        scrape()
        (kernel.unit(vm.id) / "memory.current").write_text("1\n")
        assert scrape()[f"{PREFIX}memory_bytes"][0][1] == USAGE["memory_bytes", ""]
        monkeypatch.setattr(stats, "FRESH", 0.0)
        assert scrape()[f"{PREFIX}memory_bytes"][0][1] == 1


def test_beyond_so_many_vms_the_youngest_are_counted_only(hub, kernel, add, monkeypatch):
    monkeypatch.setattr(stats, "MOST", 2)
    for name in ("a", "b", "c", "d", "e"):
        add(name)
    with Figures(hub, kernel.meter).served():
        found = scrape()
    assert [labels["name"] for labels, _ in found[f"{PREFIX}cpu_seconds_total"]] == ["a", "b"]
    assert found[UNMEASURED] == [({}, 3.0)]


@pytest.mark.parametrize("text", [None, "usage_usec many\n", "usage_usec\n"])
def test_a_vm_that_cannot_be_measured_is_logged_once(hub, kernel, add, monkeypatch, caplog, text):
    monkeypatch.setattr(stats, "FRESH", 0.0)
    caplog.set_level(logging.WARNING)
    add("well")
    odd = add("odd")
    path = kernel.unit(odd.id) / "cpu.stat"
    if text is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_text(text)
    with Figures(hub, kernel.meter).served():
        for _ in range(3):
            found = scrape()
    assert [labels["name"] for labels, _ in found[f"{PREFIX}memory_bytes"]] == ["well"]
    assert found[UNMEASURED] == [({}, 1.0)]
    assert len(caplog.messages) == 1
    assert f"what VM {odd.id} uses cannot be read" in caplog.messages[0]


def test_a_thousand_vms_are_quick(hub, kernel, add):
    for number in range(1_000):
        add(f"vm{number}")
    with Figures(hub, kernel.meter).served():
        began = time.thread_time()
        body = generate_latest(REGISTRY)
        seconds = time.thread_time() - began
    assert body.count(b"nexus_vmm_vm_cpu_seconds_total{") == 1_000
    # A bound for any machine: 0.35 s were measured.
    assert seconds < 5, seconds
