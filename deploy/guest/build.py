"""Builds everything a guest boots from, stage by stage; what did not change is not built again."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.command import Failure
from deploy.guest import firecracker, image, initramfs, kernel, packages, runtime
from deploy.stages import digest, stage

HERE = Path(__file__).resolve().parent

# The overlay: blank and sparse when vmm makes it, so there is nothing to zero or to discard.
MKE2FS = (
    "-q -F -t ext4 -b 4096 -m 0 -O ^resize_inode"
    " -E nodiscard,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1"
)


def build(out: Path) -> None:
    """Fill `out` as docs/architecture.md lays out /usr/lib/nexus/guest, with bin/ and host/."""
    stages = out / "stages"
    binaries = stage(stages, "firecracker", digest([], *firecracker.key()), firecracker.build)
    package = kernel.find_package()
    linux = stage(
        stages,
        "kernel",
        digest([HERE / "kernel.py"], package),
        lambda at: kernel.build(package, at),
    )
    boot = [HERE / "initramfs.py", HERE / "cmdline", initramfs.SCRIPT, initramfs.BUSYBOX]
    initrd = stage(
        stages,
        "initramfs",
        digest(boot, linux.name, MKE2FS),
        lambda at: _build_initrd(linux, at),
    )
    found = packages.versions(runtime.PACKAGES)
    sources = [HERE / "runtime.py", runtime.AGENT, runtime.SCRIPT, runtime.PACK, initramfs.BUSYBOX]
    drive = stage(stages, "runtime", digest(sources, *found), lambda at: runtime.build(found, at))
    debian = stage(stages, "image", digest([image.PACK], *image.key()), image.build)
    for name, file in {
        "bin/firecracker": binaries / "firecracker",
        "bin/jailer": binaries / "jailer",
        "kernels/default/vmlinux": linux / "vmlinux",
        "kernels/default/initrd": initrd / "initrd",
        "kernels/default/cmdline": initrd / "cmdline",
        "runtime.img": drive / "runtime.img",
        "images/debian.img": debian / "debian.img",
    }.items():
        _place(file, out / name)
    _link(linux, out / "host")


def _build_initrd(linux: Path, at: Path) -> None:
    archive = initramfs.build(linux, kernel.release(linux), MKE2FS)
    (at / "initrd").write_bytes(archive)
    shutil.copyfile(HERE / "cmdline", at / "cmdline")


def _place(file: Path, target: Path) -> None:
    """Put a file under its name in one step, as a hard link where that is possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.link(file, fresh)
    except OSError:
        shutil.copy(file, fresh)
    fresh.rename(target)
    fresh.unlink(missing_ok=True)  # rename(2) leaves it when both are links to one file


def _link(folder: Path, target: Path) -> None:
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(folder, target.parent))
    fresh.rename(target)


def main() -> int:
    """Build. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Build what guests boot from.")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and cache")
    args = parser.parse_args()
    os.umask(0o022)
    try:
        build(args.out.absolute())
    except (Failure, OSError) as error:
        print(f"deploy/guest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
