"""What a VM uses, from files as the kernel writes them."""

import os
from pathlib import Path

import pytest
import vmm_guest
from vmm_cgroups import USAGE, Kernel

from nexus_vmm.reports import usage


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path, vmm_guest.places(tmp_path))


@pytest.fixture
def vm(kernel):
    vm = vmm_guest.vm(spec=vmm_guest.spec(network=vmm_guest.NETWORK))
    kernel.add(vm)
    return vm


def without(*names):
    return {key: value for key, value in USAGE.items() if key[0] not in names}


def test_what_is_counted(kernel, vm):
    assert kernel.meter.read(vm) == USAGE


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("cpu.stat", ("cpu_seconds",)),
        ("vm/cpu.stat", ("cpu_throttled_seconds",)),
        ("memory.current", ("memory_bytes",)),
        ("memory.events", ("oom_kills",)),
        ("vm/memory.max", ("memory_limit_bytes",)),
        ("io.stat", ("io_bytes",)),
    ],
)
def test_what_the_kernel_does_not_tell_is_left_out(kernel, vm, name, missing):
    (kernel.unit(vm.id) / name).unlink()
    assert kernel.meter.read(vm) == without(*missing)


def test_a_vm_without_a_limit(kernel, vm):
    (kernel.unit(vm.id) / "vm/memory.max").write_text("max\n")
    assert kernel.meter.read(vm) == without("memory_limit_bytes")


def test_a_vm_that_read_and_wrote_nothing(kernel, vm):
    (kernel.unit(vm.id) / "io.stat").write_text("")
    assert kernel.meter.read(vm) == without("io_bytes")


def test_a_vm_without_a_network(kernel, vm):
    alone = vmm_guest.vm(vm.id)
    assert kernel.meter.read(alone) == without("network_bytes")


def test_a_vm_of_which_nothing_is_left(tmp_path):
    (tmp_path / "none").mkdir()
    kernel = Kernel(tmp_path, vmm_guest.places(tmp_path / "none"))
    vm = vmm_guest.vm(spec=vmm_guest.spec(network=vmm_guest.NETWORK))
    assert kernel.meter.read(vm) == {}


def test_a_cgroup_that_goes_away_while_it_is_read(kernel, vm, monkeypatch):
    def gone(handle, size):
        raise OSError(19, "No such device")

    monkeypatch.setattr(os, "read", gone)
    assert kernel.meter.read(vm) == {("disk_bytes", ""): 8192}


def test_what_may_not_be_read_is_an_error(kernel, vm):
    path = kernel.unit(vm.id) / "cpu.stat"
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        kernel.meter.read(vm)


def test_the_slice_is_that_of_the_units():
    """A dash in the name of a slice makes it a child of another (systemd.slice(5))."""
    units = Path(__file__).parents[4] / "deploy/systemd"
    assert (units / usage.SLICE.name).is_file()
    assert f"Slice={usage.SLICE.name}\n" in (units / "nexus-vm@.service").read_text()
    assert usage.SLICE.parent.stem == usage.SLICE.stem.partition("-")[0]
