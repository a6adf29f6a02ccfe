"""The limits of a VM, in a folder that stands in for the cgroup of its unit."""

import os
from pathlib import Path

import pytest

from nexus_launch import Refused, cgroup

ID = "abcdefghijk27"
MIB = 1024 * 1024


def test_limits_are_those_of_the_spec_and_what_running_it_takes():
    found = cgroup.limits(vcpus=2, memory_mib=512)
    assert found["memory.max"] == str((512 + 64 + 8) * MIB)
    assert found["memory.swap.max"] == "0"
    assert found["cpu.max"] == "250000 100000"
    assert found["pids.max"] == "10"


@pytest.fixture
def unit(tmp_path, monkeypatch):
    """A folder in which a leaf has the files that a real one has."""
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").touch()
    mkdir = cgroup.os.mkdir

    def make_leaf(path):
        mkdir(path)
        for name in ("cgroup.procs", "memory.max", "memory.oom.group", "cpu.max", "pids.max"):
            Path(path, name).touch()

    monkeypatch.setattr(cgroup.os, "mkdir", make_leaf)
    return tmp_path


def test_the_process_leaves_before_controllers_are_turned_on(unit, monkeypatch):
    written = []
    monkeypatch.setattr(
        cgroup, "_write", lambda path, value: written.append((path.removeprefix(f"{unit}/"), value))
    )
    cgroup.enter(str(unit), cgroup.limits(1, 128))
    assert written[:2] == [
        ("vm/cgroup.procs", "0"),
        ("cgroup.subtree_control", "+cpu +memory +pids"),
    ]
    assert dict(written[2:]) == {
        f"{leaf}/{name}": value
        for leaf, values in (("vm", cgroup.limits(1, 128)), ("log", cgroup.LOG_LIMITS))
        for name, value in values.items()
        if name != "memory.swap.max"  # this kernel does not count swap
    }


def test_the_leaves_are_open_to_who_reads_what_a_vm_uses(unit):
    """The unit's umask is closed; vmm, which is not root, looks up what it knows by name."""
    before = os.umask(0o077)
    try:
        cgroup.enter(str(unit), cgroup.limits(1, 128))
    finally:
        os.umask(before)
    assert {(unit / leaf).stat().st_mode & 0o777 for leaf in ("vm", "log")} == {0o711}


def test_controllers_that_are_missing_are_told(unit):
    (unit / "cgroup.controllers").write_text("cpu\n")
    with pytest.raises(Refused, match="did not delegate memory, pids"):
        cgroup.enter(str(unit), cgroup.limits(1, 128))


def test_the_units_cgroup_is_found():
    said = f"0::/nexus.slice/nexus-vms.slice/nexus-vm@{ID}.service\n"
    path = f"/sys/fs/cgroup/nexus.slice/nexus-vms.slice/nexus-vm@{ID}.service"
    assert cgroup.unit_directory(ID, said) == path
    assert cgroup.unit_directory(ID, f"1:name=systemd:/x\n{said}") == path


@pytest.mark.parametrize(
    "said",
    ["", "0::/", "0::/user.slice/session-1.scope\n", "0::/nexus-vm@aaaaaaaaaaaaa.service\n"],
)
def test_another_cgroup_is_refused(said):
    with pytest.raises(Refused, match="no cgroup"):
        cgroup.unit_directory(ID, said)
