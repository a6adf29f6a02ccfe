"""Disks and directories: sizes, modes, and what is left when something fails."""

import errno
import os
import stat
from pathlib import Path

import pytest
import vmm_guest
from vmm_guest import ID

from nexus_rpc.errors import ResourceExhausted
from nexus_vmm import places
from nexus_vmm.machine import disks
from nexus_vmm.machine.disks import grow_disk, make_home, remove_home, write_machine


@pytest.fixture
def where(tmp_path):
    return vmm_guest.places(tmp_path)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_disk_is_sparse_and_of_the_size_asked_for(where):
    make_home(where, ID, 1_048_576)
    status = where.disk(ID).stat()
    assert status.st_size == 2**40
    assert status.st_blocks * 512 < 1024 * 1024


@pytest.mark.parametrize("umask", [0o022, 0o007, 0o117, 0o000])
def test_modes_do_not_depend_on_the_umask(where, umask):
    before = os.umask(umask)
    try:
        make_home(where, ID, 16)
    finally:
        os.umask(before)
    assert mode(where.home(ID)) == 0o700
    assert mode(where.console(ID)) == 0o770
    assert mode(where.disk(ID)) == 0o660


def test_a_repeat_keeps_the_disk(where):
    make_home(where, ID, 16)
    where.disk(ID).write_bytes(b"x" * 16 * 1024 * 1024)
    make_home(where, ID, 16)
    assert where.disk(ID).read_bytes()[:1] == b"x"


def test_half_a_disk_is_replaced(where):
    where.home(ID).mkdir()
    (where.home(ID) / "overlay.new").write_bytes(b"half")
    make_home(where, ID, 16)
    assert sorted(path.name for path in where.home(ID).iterdir()) == ["console", "overlay.img"]


def test_a_disk_grows_by_zeros_and_keeps_what_is_on_it(where):
    make_home(where, ID, 16)
    where.disk(ID).write_bytes(b"x" * 16 * 1024 * 1024)
    before = where.disk(ID).stat()
    for _ in range(2):
        grow_disk(where, ID, 32)
        status = where.disk(ID).stat()
        assert (status.st_size, status.st_ino) == (32 * 1024 * 1024, before.st_ino)
        assert status.st_blocks * 512 < 20 * 1024 * 1024
        assert mode(where.disk(ID)) == 0o660
    content = where.disk(ID).read_bytes()
    assert content == b"x" * 16 * 1024 * 1024 + bytes(16 * 1024 * 1024)


def test_a_disk_is_never_made_smaller(where):
    make_home(where, ID, 32)
    grow_disk(where, ID, 16)
    assert where.disk(ID).stat().st_size == 32 * 1024 * 1024


def test_a_link_in_place_of_a_disk_is_not_followed(where, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"x")
    make_home(where, ID, 16)
    where.disk(ID).unlink()
    where.disk(ID).symlink_to(other)
    with pytest.raises(OSError, match="symbolic links"):
        grow_disk(where, ID, 16)
    assert other.read_bytes() == b"x"


def test_a_disk_without_room_to_grow_stays_as_it_is(where, monkeypatch):
    make_home(where, ID, 16)

    def full(handle, size):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(disks.os, "ftruncate", full)
    with pytest.raises(ResourceExhausted, match="disk of 32 MiB") as caught:
        grow_disk(where, ID, 32)
    assert caught.value.reason == "DISK_FULL"
    assert where.disk(ID).stat().st_size == 16 * 1024 * 1024


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told(where, monkeypatch, code):
    def full(handle, size):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disks.os, "ftruncate", full)
    with pytest.raises(ResourceExhausted, match="disk of 16 MiB") as caught:
        make_home(where, ID, 16)
    assert caught.value.reason == "DISK_FULL"


def test_other_errors_are_not_called_a_full_disk(where, monkeypatch):
    def broken(handle, size):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(disks.os, "ftruncate", broken)
    with pytest.raises(OSError, match="I/O error"):
        make_home(where, ID, 16)


def test_removal_follows_no_link_and_may_be_repeated(where, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    make_home(where, ID, 16)
    (where.console(ID) / "link").symlink_to(other)
    for _ in range(2):
        remove_home(where, ID)
    assert (other / "kept").exists()
    assert places.vm_ids(where.vms_dir) == set()


def test_a_removal_is_on_the_disk_when_it_is_told(where, monkeypatch):
    make_home(where, ID, 1)
    synced = []

    def fsync(handle):
        assert not where.home(ID).exists()
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    remove_home(where, ID)
    remove_home(where, ID)  # the one before may have been killed just before it synced
    assert synced == [where.vms_dir] * 2


def test_no_depth_and_no_odd_name_keeps_a_directory(where, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").touch()
    run = where.run(ID)
    run.mkdir()
    here = os.open(run, os.O_RDONLY)
    for _ in range(1200):  # deeper than Python recurses, and than a path can tell
        os.mkdir("..d\n\udcff", dir_fd=here)
        os.symlink(other, "link", dir_fd=here)
        os.mkfifo("pipe", dir_fd=here)
        below = os.open("..d\n\udcff", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (run / "wide").mkdir()
    for number in range(50):
        (run / "wide" / str(number)).mkdir()
    places.remove_directory(run)
    assert not run.exists()
    assert (other / "kept").exists()


def test_what_is_no_directory_is_told_and_left(where, tmp_path):
    where.run(ID).symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        places.remove_directory(where.run(ID))
    assert tmp_path.is_dir()


def test_the_limits_are_told_again_only_where_they_changed(where):
    make_home(where, ID, 16)
    write_machine(where, ID, vmm_guest.spec())
    before = where.machine(ID).stat()
    write_machine(where, ID, vmm_guest.spec())
    assert where.machine(ID).stat().st_ino == before.st_ino
    write_machine(where, ID, vmm_guest.spec(vcpu_count=3, serial_input=True))
    assert where.machine(ID).read_text() == "3 128 1\n"


def test_a_disk_without_room_for_the_limits_is_told(where, monkeypatch):
    make_home(where, ID, 16)
    write_machine(where, ID, vmm_guest.spec())

    def full(path, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(where.machine(ID)), "write_text", full)
    write_machine(where, ID, vmm_guest.spec())
    with pytest.raises(ResourceExhausted, match="the limits of a VM") as caught:
        write_machine(where, ID, vmm_guest.spec(vcpu_count=3))
    assert caught.value.reason == "DISK_FULL"
