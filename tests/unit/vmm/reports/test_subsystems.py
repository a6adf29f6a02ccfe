"""What is looked at of each subsystem."""

import os
import re
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest
import vmm_guest
import vmm_units

from nexus_rpc.errors import ResourceExhausted
from nexus_vmm.limits.admission import Admission
from nexus_vmm.records.store import Store
from nexus_vmm.records.watch import Hub
from nexus_vmm.reports.health import Health, Subsystem
from nexus_vmm.reports.subsystems import LEAST_BYTES, LEAST_FILES, checks, statuses

MIB = 1 << 20


async def default():
    return vmm_guest.spec()


class World:
    """A host on which all is well, and the checks of it."""

    def __init__(self, directory, store):
        self.store = store
        self.units = vmm_units.FakeUnits(vmm_units.Model(vmm_units.idle))
        self.assets = vmm_guest.guest_files(directory / "guest")
        self.directory = directory
        self.kvm = directory / "kvm"
        self.kvm.mkdir()

    async def look(self, name):
        """Return whether a subsystem is well, and the detail."""
        made = checks(
            self.store,
            (self.directory, self.directory / "guest"),
            self.units,
            self.assets,
            default,
            kvm=self.kvm,
        )
        (seen,) = await Health({name: made[name]}).now()
        return seen.ok, seen.detail


@pytest.fixture
def world(tmp_path, host):
    return World(tmp_path, Store(host.database, Hub(), Admission(host.room)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("store", "written and read in "),
        ("disk", " GiB free in "),
        ("kvm", "the kernel offers /dev/kvm"),
        ("systemd", f"systemd {vmm_units.VERSION} answers"),
        ("images", "debian on default, of 1 images and 1 kernels"),
    ],
)
async def test_all_is_well(world, name, says):
    ok, detail = await world.look(name)
    assert ok
    assert says in detail


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (sqlite3.DatabaseError("disk image is malformed"), "see recovery.md"),
        (ResourceExhausted("DISK_FULL", "no room on the host"), "no room on the host"),
    ],
)
async def test_a_store_that_cannot_be_written(world, monkeypatch, error, says):
    def broken(*_):
        raise error

    monkeypatch.setattr("nexus_vmm.records.rows.beat", broken)
    ok, detail = await world.look("store")
    assert not ok
    assert says in detail


def room(monkeypatch, **changes):
    """Let each file system be of 100 GiB, with room, but for `changes`."""
    values = {
        "f_bavail": 50 << 10,
        "f_blocks": 100 << 10,
        "f_frsize": MIB,
        "f_flag": 0,
        "f_files": 1 << 20,
        "f_favail": 1 << 19,
    }
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**values | changes))


@pytest.mark.parametrize(
    ("changes", "ok", "says"),
    [
        ({}, True, "50.0 of 100.0 GiB free in "),
        ({"f_bavail": LEAST_BYTES // MIB}, True, "1.0 of 100.0 GiB"),
        ({"f_bavail": LEAST_BYTES // MIB - 1}, False, "only 1.0 of 100.0 GiB free in "),
        ({"f_bavail": 52, "f_blocks": 1024}, True, "0.1 of 1.0 GiB"),
        ({"f_bavail": 51, "f_blocks": 1024}, False, "delete VMs, or make room there"),
        ({"f_flag": os.ST_RDONLY}, False, "is read-only"),
        ({"f_favail": LEAST_FILES - 1}, False, "room for 999 more files in "),
        ({"f_files": 0, "f_favail": 0}, True, "GiB free"),
    ],
)
async def test_room_on_a_disk(world, monkeypatch, changes, ok, says):
    room(monkeypatch, **changes)
    well, detail = await world.look("disk")
    assert well is ok
    assert says in detail
    assert detail.count(str(world.directory)) == 1, "one file system is told once"


async def test_a_directory_that_is_gone(world):
    (world.directory / "guest").rename(world.directory / "elsewhere")
    ok, detail = await world.look("disk")
    assert not ok
    assert str(world.directory / "guest") in detail


async def test_a_kernel_without_kvm(world):
    world.kvm.rmdir()
    ok, detail = await world.look("kvm")
    assert not ok
    assert "kvm_intel or kvm_amd" in detail


async def test_a_systemd_that_does_not_answer(world):
    world.units.down = True
    assert await world.look("systemd") == (False, "systemd does not answer")


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("images/debian.img", "there is no image 'debian'"),
        ("kernels/default/vmlinux", "there is no kernel 'default'"),
        ("kernels/default/initrd", "there is no kernel 'default'"),
        ("runtime.img", "runtime.img is missing"),
    ],
)
async def test_what_vms_boot_from_is_missing(world, missing, says):
    (world.directory / "guest" / missing).unlink()
    ok, detail = await world.look("images")
    assert not ok
    assert says in detail


def test_the_service_serves_as_long_as_its_store_does():
    names = ("store", "disk")
    for bad in names:
        seen = [Subsystem(name, ok=name != bad, detail="") for name in names]
        assert statuses("nexus.vmm.v1.VmService", seen) == {
            "nexus.vmm.v1.VmService": bad != "store",
            "nexus.vmm.store": bad != "store",
            "nexus.vmm.disk": bad != "disk",
        }


async def test_the_names_are_those_of_the_proto(world):
    made = checks(world.store, (), world.units, world.assets, default)
    proto = (Path(__file__).parents[4] / "protos/nexus/vmm/v1/vmm.proto").read_text()
    (told,) = re.findall(r"message Subsystem \{\n  // (.*)\n", proto)
    assert re.findall(r'"(\w+)"', told) == list(made)
