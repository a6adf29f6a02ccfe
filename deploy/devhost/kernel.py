"""The dev host's kernel: Debian's cloud kernel, and an initramfs that mounts its two disks."""

from __future__ import annotations

from pathlib import Path

from deploy.command import run
from deploy.devhost.cpio import Archive
from deploy.devhost.layout import ADDRESS

_BUSYBOX = Path("/bin/busybox")
_INIT = Path(__file__).with_name("init")
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng")


def build_initrd(modules: Path) -> bytes:
    """Return an initramfs with what it takes to reach root, disk and network.

    `modules` is a kernel's folder, ".../lib/modules/RELEASE", after depmod.
    """
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        archive.folder(name)
    archive.file("bin/busybox", _BUSYBOX.read_bytes(), 0o755)
    archive.file("init", _INIT.read_bytes().replace(b"@ADDRESS@", ADDRESS.encode()), 0o755)
    order = _with_dependencies(modules)
    for path in order:
        archive.file(f"modules/{path.name}", path.read_bytes())
    archive.file("modules/order", "".join(f"{path.name}\n" for path in order).encode())
    return archive.finish()


def _with_dependencies(modules: Path) -> list[Path]:
    """Return the files of the modules, each behind those it needs."""
    root = modules.parents[2]
    files: dict[Path, None] = {}
    for name in _MODULES:
        shown = run(["modprobe", "-d", root, "-S", modules.name, "--show-depends", name])
        for line in shown.splitlines():
            word, _, rest = line.partition(" ")
            if word == "insmod":
                files[Path(rest.strip())] = None
    return list(files)
