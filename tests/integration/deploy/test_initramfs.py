"""The first script of a guest, in a root of its own where busybox's tools are played.

What it looks at is real: the shell, the files of the disk. What a kernel would do is told instead.
"""

import shutil
import subprocess

import pytest

from deploy.guest.initramfs import BUSYBOX, SCRIPT

PLAYED = """#!/bin/busybox.real sh
case $1 in
  mount | modprobe)
    echo "$@" >>/told
    case "$*" in *" /dev/vdb "*) [ -e /has-file-system ] ;; esac ;;
  cmp) [ -e /is-blank ] ;;
  switch_root) echo "$@" >>/told ;;
  *) exec /bin/busybox.real "$@" ;;
esac
"""
# Runs in place of the loader: --library-path DIR PROGRAM ARGUMENTS.
TOOL = """#!/bin/busybox.real sh
echo "${3##*/}" "$4" >>/told
case $3 in */mke2fs) : >/has-file-system ;; esac
[ ! -e /fails ]
"""
MEBIBYTE = 2048
"""In sectors."""


class Guest:
    """A root folder for the script, and what it did there."""

    def __init__(self, root):
        self.root = root
        for name in ("bin", "dev", "proc", "sys/class/block/vdb", "sys/bus/virtio/devices/0"):
            (root / name).mkdir(parents=True)
        for name in ("image", "disk", "root", "nexus/bin", "nexus/lib"):
            (root / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox.real")
        self._program("bin/busybox", PLAYED)
        self._program("nexus/lib/ld-linux-x86-64.so.2", TOOL)
        for name in ("mke2fs", "resize2fs"):
            self._program(f"nexus/bin/{name}", "")
        (root / "sys/bus/virtio/devices/0/device").write_text("0x0002\n")
        (root / "dev/console").touch()
        shutil.copy(SCRIPT, root / "init")

    def _program(self, path, text):
        (self.root / path).write_text(text)
        (self.root / path).chmod(0o755)

    def has(self, *names):
        """Let these files be there."""
        for name in names:
            (self.root / name).touch()

    def boot(self, mib):
        """Run the script with a disk of that size; return which tools it ran on the disk."""
        (self.root / "sys/class/block/vdb/size").write_text(f"{mib * MEBIBYTE}\n")
        (self.root / "told").unlink(missing_ok=True)
        subprocess.run(
            ["unshare", "-r", f"--root={self.root}", "/bin/busybox.real", "sh", "/init"],
            env={},
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )
        told = (self.root / "told").read_text().splitlines()
        assert told[-1].startswith("switch_root /root")
        return [line.split()[0] for line in told if "2fs" in line]

    def said(self):
        return (self.root / "dev/console").read_text()

    def filled(self):
        """Return how large a disk the file system is known to fill, in MiB."""
        return int((self.root / "disk/sectors").read_text()) // MEBIBYTE


@pytest.fixture
def guest(tmp_path):
    return Guest(tmp_path)


def test_a_blank_disk_gets_a_file_system_once(guest):
    guest.has("is-blank")
    assert guest.boot(256) == ["mke2fs"]
    assert guest.filled() == 256
    assert guest.boot(256) == []
    there = {path.name for path in (guest.root / "disk").iterdir()}
    assert there == {"sectors", "upper", "work"}


def test_a_disk_that_was_made_larger_is_filled_once(guest):
    guest.has("is-blank")
    guest.boot(256)
    assert guest.boot(512) == ["resize2fs"]
    assert guest.filled() == 512
    assert guest.boot(512) == []


def test_a_disk_of_an_older_release_is_filled_once(guest):
    guest.has("has-file-system")
    assert guest.boot(256) == ["resize2fs"]
    assert guest.boot(256) == []


@pytest.mark.parametrize("mark", ["", "nonsense", "\0\n"])
def test_a_damaged_mark_is_written_anew(guest, mark):
    guest.has("has-file-system")
    (guest.root / "disk/sectors").write_text(mark)
    assert guest.boot(256) == ["resize2fs"]
    assert guest.filled() == 256


def test_a_file_system_that_cannot_grow_boots_as_it_is_and_is_tried_again(guest):
    guest.has("has-file-system", "fails")
    assert guest.boot(256) == ["resize2fs"]
    assert "is not made larger" in guest.said()
    (guest.root / "fails").unlink()
    assert guest.boot(256) == ["resize2fs"]
    assert guest.filled() == 256


def test_a_runtime_drive_without_the_tool_boots_as_ever(guest):
    guest.has("has-file-system")
    (guest.root / "nexus/bin/resize2fs").unlink()
    assert guest.boot(256) == []
    assert not (guest.root / "disk/sectors").exists()
