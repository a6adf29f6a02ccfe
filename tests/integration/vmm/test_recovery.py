"""The steps of docs/recovery.md, with vmm as a process: databases, disks and images gone bad."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess

import pytest
from vmm_process import LIVE, SECONDS, hosting

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from nexus_rpc.vms import follow


@pytest.fixture
async def service(short_path):
    async with hosting(short_path) as service:
        await service.start()
        yield service


@contextlib.contextmanager
def small_disk(path, size):
    """Mount a disk of `size` MiB at `path` for as long as the block."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}M", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(path):
    """Take all room that is left on the disk of `path`; return the file that has it."""
    taken = path / "taken"
    with taken.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return taken


async def until_refused(service):
    """Use up the pages that SQLite has left in its log; return with what it then refuses."""
    number = 0
    while True:
        number += 1
        try:
            await service.call("CreateVm", name=f"more-{number}", request_id=f"{number}")
        except ResourceExhausted as error:
            return error.reason


def database(service):
    return service.directory / "state/vmm.db"


def copy(service, name="copy.db"):
    """Copy the database of a vmm that runs, as the page says."""
    there = service.directory / name
    with (
        contextlib.closing(sqlite3.connect(database(service))) as source,
        contextlib.closing(sqlite3.connect(there)) as target,
    ):
        source.backup(target)
    return there


async def refused(service):
    """Start vmm, which is not to come up; return what it says of it."""
    await service.start()
    async with asyncio.timeout(SECONDS):
        assert await service.process.wait() != 0
    return (service.directory / "log").read_text()


def put_back(service, there):
    for old in ("vmm.db-wal", "vmm.db-shm"):
        (service.directory / "state" / old).unlink(missing_ok=True)
    shutil.copy(there, database(service))


async def some(service):
    for name in ("a", "b"):
        await service.call("CreateVm", name=name)
        await service.call("StartVm", vm=name)
    return {vm.name: vm for vm in await service.vms()}


@pytest.mark.parametrize("damage", ["truncated", "no database", "a page of noise"])
async def test_a_damaged_database_is_refused_and_a_copy_put_back(service, damage):
    before = await some(service)
    there = copy(service)
    await service.kill()
    path = database(service)
    put_back(service, there)
    whole = path.read_bytes()
    bad = {
        "truncated": whole[: len(whole) // 2],
        "no database": b"not a database" * 1000,
        "a page of noise": whole[:4096] + bytes(range(256)) * 16 + whole[8192:],
    }[damage]
    path.write_bytes(bad)
    log = await refused(service)
    assert f"{path} cannot be used" in log
    assert "put back a copy" in log
    assert path.read_bytes() == bad
    # VMs live on meanwhile.
    assert all(not service.model.describe(vm.id).gone for vm in before.values())

    put_back(service, there)
    await service.start()
    assert {vm.name: vm.pid for vm in await service.check()} == {
        name: vm.pid for name, vm in before.items()
    }


async def test_those_who_follow_notice_that_a_copy_was_put_back(service):
    """By themselves, though the copy goes on to as many changes as they had heard of."""
    await service.call("CreateVm", name="kept")
    there = copy(service)
    await service.call("CreateVm", name="lost")
    changes = follow(f"unix:{service.directory}/server/vmm.sock")
    known = {}

    async def until(*names):
        async for event in changes:
            if isinstance(event, pb.WatchVmsResponse):
                if event.missed:
                    known.clear()
                elif event.HasField("vm"):
                    known[event.vm.id] = event.vm.name
                if sorted(known.values()) == sorted(names):
                    return

    async with asyncio.timeout(SECONDS), contextlib.aclosing(changes):
        await until("kept", "lost")
        await service.kill()
        put_back(service, there)
        await service.start()
        for name in ("new", "newer", "newest"):
            await service.call("CreateVm", name=name)
        await until("kept", "new", "newer", "newest")


async def test_what_a_copy_does_not_know_is_ended_and_its_disk_can_be_had_again(service):
    there = copy(service)
    vm = (await service.call("CreateVm", name="a", spec=pb.VmSpec(disk_mib=32))).vm
    await service.call("StartVm", vm="a")
    with service.places.disk(vm.id).open("r+b") as disk:
        disk.write(b"what was worked for")
    await service.kill()
    put_back(service, there)
    await service.start()
    assert await service.vms() == []
    assert service.model.describe(vm.id).gone
    # The disk holds data, so nobody but its owner may say what becomes of it.
    for spec in (pb.VmSpec(), pb.VmSpec(disk_mib=16)):
        with pytest.raises(AlreadyExists, match="holds the data of an earlier VM, and has 32 MiB"):
            await service.call("CreateVm", name="a", vm_id=vm.id, spec=spec)
    await service.call("CreateVm", name="a", vm_id=vm.id, spec=pb.VmSpec(disk_mib=32))
    assert service.places.disk(vm.id).read_bytes()[:19] == b"what was worked for"
    await service.call("StartVm", vm="a")
    await service.check()


async def test_one_damaged_record_costs_no_other_vm(service):
    before = await some(service)
    await service.kill()
    with contextlib.closing(sqlite3.connect(database(service))) as db:
        db.execute("UPDATE vms SET spec = '{' WHERE name = 'a'")
        db.commit()
    await service.start()
    a = (await service.call("GetVm", vm="a")).vm
    assert a.state == pb.VM_STATE_FAILED
    assert "its record is damaged" in a.state_reason
    with pytest.raises(FailedPrecondition) as caught:
        await service.call("StartVm", vm="a")
    assert caught.value.reason == "VM_DAMAGED"
    assert [vm.name for vm in await service.vms()] == ["a", "b"]
    tagged = await service.call("ListVms", filter=pb.VmFilter(tags={"team": "blue"}))
    assert not tagged.vms
    assert service.model.describe(before["a"].id).pid == before["a"].pid
    await service.call("StopVm", vm="b")
    await service.call("DeleteVm", vm="a")
    await service.check()


async def test_on_a_full_disk_vms_live_on_and_are_stopped_and_deleted(service):
    await service.kill()
    state = service.directory / "state"
    with small_disk(state, 10):
        await service.start()
        before = await some(service)
        taken = fill(state)
        assert await until_refused(service) == "DISK_FULL"
        assert not service.model.describe(before["b"].id).gone
        await service.call("StopVm", vm="a", grace_seconds=0)
        await service.call("DeleteVm", vm="a")
        await service.kill()
        await service.start()
        assert service.model.describe(before["b"].id).pid == before["b"].pid
        names = {vm.name for vm in await service.check()}
        assert "b" in names
        assert "a" not in names
        taken.unlink()
        await service.call("CreateVm", name="new")
        await service.kill()


async def test_on_a_disk_that_became_read_only_all_is_told_and_nothing_is_touched(service):
    before = await some(service)
    await service.kill()
    state = service.directory / "state"
    kept = service.directory / "kept"
    shutil.copytree(state, kept)
    with small_disk(state, 10):
        shutil.copytree(kept, state, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", state], check=True)
        await service.start()
        assert {vm.pid for vm in await service.check()} == {vm.pid for vm in before.values()}
        for call in ("StopVm", "StartVm", "DeleteVm"):
            with pytest.raises((ResourceExhausted, FailedPrecondition)) as caught:
                await service.call(call, vm="a", request_id="x")
            assert caught.value.reason in {"DISK_UNWRITABLE", "VM_STATE"}
        assert not service.model.describe(before["a"].id).gone
        systems = {one.name: one for one in (await service.call("GetInfo")).subsystems}
        assert not systems["store"].ok
        assert "read-only" in systems["store"].detail
        subprocess.run(["mount", "-o", "remount,rw", state], check=True)
        await service.kill()
        await service.start()
        await service.call("StopVm", vm="a")
        assert [vm.pid for vm in await service.check()] == [0, before["b"].pid]
        await service.kill()


async def test_an_image_that_is_replaced_or_gone_costs_only_the_next_start(service):
    await service.call("CreateVm", name="a")
    vm = (await service.call("StartVm", vm="a")).vm
    image = service.directory / "guest/images/debian.img"
    image.unlink()
    await service.kill()
    await service.start()
    assert (await service.call("GetVm", vm="a")).vm.pid == vm.pid
    await service.call("StopVm", vm="a")
    with pytest.raises(NotFound) as caught:
        await service.call("StartVm", vm="a")
    assert caught.value.reason == "IMAGE_NOT_FOUND"
    assert (await service.call("GetVm", vm="a")).vm.state == pb.VM_STATE_FAILED
    image.write_bytes(b"another one")
    assert (await service.call("StartVm", vm="a")).vm.state in LIVE


async def test_files_that_are_replaced_are_had_by_the_next_start_and_refused_if_they_do_not_fit(
    service,
):
    for name in "ab":
        await service.call("CreateVm", name=name)
        await service.call("StartVm", vm=name)
    before = {vm.name: vm for vm in await service.vms()}
    kernel = service.directory / "guest/kernels/default/vmlinux"
    good = kernel.read_bytes()

    def put(content):
        fresh = kernel.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(kernel)

    put(b"no kernel")
    await service.kill()
    await service.start()
    assert {vm.name: vm for vm in await service.check()} == before
    await service.call("StopVm", vm="a")
    with pytest.raises(FailedPrecondition, match="failed to load ELF kernel image") as caught:
        await service.call("StartVm", vm="a")
    assert caught.value.reason == "BOOT_FAILED"
    failed = (await service.call("GetVm", vm="a")).vm
    assert (failed.state, "ELF" in failed.state_reason) == (pb.VM_STATE_FAILED, True)

    put(good)
    again = (await service.call("StartVm", vm="a")).vm
    assert again.state in LIVE
    assert (await service.check())[1] == before["b"]
