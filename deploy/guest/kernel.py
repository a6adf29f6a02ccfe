"""Debian's cloud kernel: as ELF for Firecracker, as it is for a machine, and its modules."""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
from pathlib import Path

from deploy.command import Failure, run
from deploy.guest import packages

_META = "linux-image-cloud-amd64"
_LZ4_LEGACY = bytes.fromhex("02214c18")


def find_package() -> str:
    """Return "name=version" of the kernel package that Debian's metapackage stands for."""
    shown = run(["apt-cache", "depends", "--important", _META])
    names = re.findall(r"Depends: (linux-image-\S+)", shown)
    if len(names) != 1:
        raise Failure(f"apt knows no {_META}; run `apt-get update`")
    return packages.versions(names)[0]


def build(package: str, target: Path) -> None:
    """Make `vmlinux`, `vmlinuz` and `lib/modules/RELEASE`, after depmod, in `target`."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        tree = Path(folder)
        packages.unpack([package], tree)
        (image,) = (tree / "boot").glob("vmlinuz-*")
        shutil.copyfile(image, target / "vmlinuz")
        shutil.move(tree / "lib", target / "lib")
    (target / "vmlinux").write_bytes(extract((target / "vmlinuz").read_bytes(), target))
    run(["depmod", "-b", target, release(target)])


def release(folder: Path) -> str:
    """Return the release of the kernel built in `folder`."""
    (modules,) = (folder / "lib/modules").iterdir()
    return modules.name


def extract(image: bytes, scratch: Path) -> bytes:
    """Return the ELF file that a bzImage carries (kernel: Documentation/x86/boot.rst)."""
    if image[0x202:0x206] != b"HdrS":
        raise Failure("the kernel is no bzImage")
    setup = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    # The last four bytes are the size of what is packed.
    payload = image[setup + offset : setup + offset + length - 4]
    if not payload.startswith(_LZ4_LEGACY):
        raise Failure(f"the kernel is packed in an unknown way: begins with {payload[:4].hex()}")
    packed, plain = scratch / "payload.lz4", scratch / "payload"
    packed.write_bytes(payload)
    run(["lz4", "-d", "-f", "-q", packed, plain])
    elf = plain.read_bytes()
    packed.unlink()
    plain.unlink()
    if not elf.startswith(b"\x7fELF"):
        raise Failure("what the kernel carries is no ELF file")
    return elf
