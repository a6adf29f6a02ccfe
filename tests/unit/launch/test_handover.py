"""What the launcher takes for a VM's, and what it refuses."""

import os
import stat

import pytest

from nexus_launch import Refused, handover

ME = os.getuid()


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Record who would get which file, in place of giving it away."""
    found = {}
    monkeypatch.setattr(
        handover.os,
        "chown",
        lambda path, uid, gid, follow_symlinks=True: found.update({str(path): (uid, gid)}),
    )
    return found


@pytest.fixture
def home(tmp_path):
    handle = handover.open_home(str(tmp_path), ME)
    yield handle
    os.close(handle)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096))
    path.chmod(0o660)
    return path


def test_a_disk_of_vmm_is_given_to_the_vm(disk, given):
    assert handover.hand_over_disk(str(disk), 7, 8, vmm=ME) == 4096
    assert given == {str(disk): (7, 8)}


def test_a_disk_of_the_vm_stays(disk, given):
    assert handover.hand_over_disk(str(disk), ME, os.getgid(), vmm=1) == 4096
    assert given == {}


def test_a_disk_of_another_vm_is_refused(disk, given):
    with pytest.raises(Refused, match="belongs to the user"):
        handover.hand_over_disk(str(disk), ME + 1, 8, vmm=ME + 2)
    assert given == {}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda disk: (disk.unlink(), disk.symlink_to("/dev/null")), "no file"),
        (lambda disk: (disk.unlink(), os.mkfifo(disk, 0o660)), "no file"),
        (lambda disk: (disk.unlink(), disk.mkdir()), "no file"),
        (lambda disk: disk.with_name("second").hardlink_to(disk), "2 names"),
        (lambda disk: disk.chmod(0o666), "mode"),
        (lambda disk: disk.chmod(0o4660), "mode"),
    ],
)
def test_what_is_no_disk_is_refused(disk, given, spoil, why):
    spoil(disk)
    with pytest.raises(Refused, match=why):
        handover.hand_over_disk(str(disk), 7, 8, vmm=ME)
    assert given == {}


def test_a_directory_of_another_or_a_link_is_no_home(tmp_path):
    with pytest.raises(Refused, match="not vmm's"):
        handover.open_home(str(tmp_path), ME + 1)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="Not a directory"):
        handover.open_home(str(tmp_path / "link"), ME)


@pytest.mark.parametrize("serial", [0, 1])
def test_a_machine_is_read(tmp_path, home, serial):
    (tmp_path / "machine").write_text(f"2 512 {serial}\n")
    assert handover.read_machine(home, ME) == (2, 512, bool(serial))


@pytest.mark.parametrize(
    "text",
    [
        *("", "2 512", "2 512 0 0", "two 512 0", "0 512 0", "33 512 0", "2 79 0", "2 65537 0"),
        *("2 512 2", "-1 512 0", "2 512 0" + " " * 64, "\0", "2 512 " + "0" * 5000),
    ],
)
def test_other_machines_are_refused(tmp_path, home, text):
    (tmp_path / "machine").write_text(text)
    with pytest.raises(Refused, match="is not vCPUs"):
        handover.read_machine(home, ME)


def test_a_machine_elsewhere_is_refused(tmp_path, home):
    machine = tmp_path / "machine"
    (tmp_path / "other").write_text("2 512 0")
    machine.symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        handover.read_machine(home, ME)
    machine.unlink()
    os.mkfifo(machine)
    with pytest.raises(Refused, match="no file of vmm's"):
        handover.read_machine(home, ME)


def test_a_socket_directory_is_for_the_process_and_its_group(tmp_path, given):
    api = tmp_path / "api"
    api.mkdir()
    handover.hand_over_directory(str(api), 7, 8)
    assert stat.S_IMODE(api.stat().st_mode) == 0o770
    assert given == {str(api): (7, 8)}


def test_the_group_has_a_socket_directory_before_it_is_closed_to_others(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(handover.os, "chown", lambda *given, **_: done.append(given[1:]))
    monkeypatch.setattr(handover.os, "chmod", lambda _, mode: done.append(mode))
    handover.hand_over_directory(str(tmp_path), 7, 8)
    assert done == [(-1, 8), 0o770, (7, 8)]


def test_serial_input_never_ends_and_only_the_group_may_write(tmp_path, given):
    path = tmp_path / "serial"
    handle = handover.make_serial(str(path), 8)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o620
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"typed")
    os.close(writer)
    assert os.read(handle, 64) == b"typed"
    with pytest.raises(BlockingIOError):
        os.read(handle, 64)
    os.close(handle)
