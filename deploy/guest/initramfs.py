"""The guest's initramfs: busybox, the modules of a microVM's devices, and `boot/initramfs`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from deploy.command import run
from deploy.devhost.cpio import Archive

BUSYBOX = Path("/bin/busybox")
SCRIPT = Path(__file__).with_name("boot") / "initramfs"

# virtio_mmio finds the devices; boot/initramfs loads what they need, and what the root needs.
_MODULES = (
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    "overlay",
)


def build(kernel: Path, release: str, mke2fs: str) -> bytes:
    """Return the archive, uncompressed: unpacking costs a guest more time than reading."""
    archive = Archive()
    folder = f"lib/modules/{release}"
    for name in ("bin", "dev", "proc", "sys", "lib", "lib/modules", folder):
        archive.folder(name)
    for name in ("image", "disk", "root", "nexus"):
        archive.folder(name)
    archive.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    archive.file("init", SCRIPT.read_bytes().replace(b"@MKE2FS@", mke2fs.encode()), 0o755)
    files = _with_dependencies(kernel, release)
    dependencies = []
    for path in files:
        archive.file(f"{folder}/{path.name}", _stripped(path))
        needed = [other.name for other in reversed(_needed(kernel, release, path.stem)[:-1])]
        dependencies.append(f"{path.name}: {' '.join(needed)}\n")
    archive.file(f"{folder}/modules.dep", "".join(dependencies).encode())
    return archive.finish()


def _with_dependencies(kernel: Path, release: str) -> list[Path]:
    files: dict[Path, None] = {}
    for name in _MODULES:
        files.update(dict.fromkeys(_needed(kernel, release, name)))
    return list(files)


def _needed(kernel: Path, release: str, module: str) -> list[Path]:
    """Return the files of a module and of what it needs, in the order of loading."""
    shown = run(["modprobe", "-d", kernel, "-S", release, "--show-depends", module])
    return [Path(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod")]


def _stripped(module: Path) -> bytes:
    """Return a module without debug data, and without its signature, whose check takes time."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / module.name
        run(["strip", "--strip-debug", "-o", target, module])
        return target.read_bytes()
