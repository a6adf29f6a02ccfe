"""Guest images and kernels: what there is, by name, below one directory.

Names reach here only through `spec.check_spec`, which lets no separator pass, so that no name
leads out of the directory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.errors import NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from nexus_vmm.vm import Spec

_CMDLINE = "console=ttyS0 reboot=k panic=1 pci=off"
# COMMAND_LINE_SIZE of x86 is 2,048 with the NUL; Firecracker adds its own devices.
_MAX_TUNING = 1536


@dataclass(frozen=True)
class Files:
    """The files that a machine boots from, and its kernel command line."""

    kernel: Path
    initrd: Path
    cmdline: str
    image: Path
    runtime: Path


@dataclass(frozen=True)
class Assets:
    """The guest directory. All methods block on the disk."""

    directory: Path

    def images(self) -> list[str]:
        """Return the names of the images there are."""
        return sorted(path.stem for path in (self.directory / "images").glob("*.img"))

    def kernels(self) -> list[str]:
        """Return the names of the kernels there are."""
        return sorted(path.parent.name for path in (self.directory / "kernels").glob("*/vmlinux"))

    def find(self, spec: Spec) -> Files:
        """Return what a machine of `spec` boots from. Raises NotFound (IMAGE_NOT_FOUND)."""
        kernel = self.directory / "kernels" / spec.kernel
        image = self.directory / "images" / f"{spec.image}.img"
        if not image.is_file():
            raise _missing("image", spec.image, self.images())
        if not (kernel / "vmlinux").is_file() or not (kernel / "initrd").is_file():
            raise _missing("kernel", spec.kernel, self.kernels())
        return Files(
            kernel=kernel / "vmlinux",
            initrd=kernel / "initrd",
            cmdline=_cmdline(kernel / "cmdline"),
            image=image,
            runtime=self.directory / "runtime.img",
        )


def _cmdline(path: Path) -> str:
    """Return the command line, with the tuning that came with the kernel."""
    try:
        with path.open("rb") as file:
            tuning = os.fsdecode(file.read(_MAX_TUNING))
    except FileNotFoundError:
        tuning = ""
    return " ".join([_CMDLINE, *tuning.split()])


def _missing(kind: str, name: str, there: list[str]) -> NotFound:
    known = ", ".join(there) or "none at all"
    return NotFound(
        "IMAGE_NOT_FOUND", f"there is no {kind} {name!r}; there is: {known}", **{kind: name}
    )
