"""What vmm depends on, and the check of each: the one table of its subsystems."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nexus_vmm.reports.health import Unwell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from nexus_vmm.machine.assets import Assets
    from nexus_vmm.reports.health import Check, Subsystem
    from nexus_vmm.vm import Spec

KVM = Path("/sys/class/misc/kvm")
"""There while the kernel offers /dev/kvm, which this service's own /dev does not show."""

LEAST_BYTES = 1 << 30
LEAST_SHARE = 0.05
LEAST_FILES = 1_000
"""A file system is short of room below a GiB or a twentieth of it, whichever is less, or below so
many files."""

_GIB = 1 << 30


class Store(Protocol):
    """Of `nexus_vmm.records.store.Store`, what is looked at."""

    async def beat(self) -> None:
        """Write something, and read it again. Raises sqlite3.Error and as any write does."""


class Systemd(Protocol):
    """Of `nexus_vmm.machine.units.Units`, what is looked at."""

    async def version(self) -> str:
        """Return the version of systemd."""


def checks(
    store: Store,
    directories: Iterable[Path],
    systemd: Systemd,
    assets: Assets,
    default: Callable[[], Awaitable[Spec]],
    *,
    kvm: Path = KVM,
) -> Mapping[str, Check]:
    """Return the check of each subsystem by its name (see Subsystem in vmm.proto).

    `directories` are those that need room; `default` returns what a VM is made of for which
    nothing is asked.
    """
    return {
        "store": lambda: _store(store),
        "disk": lambda: asyncio.to_thread(_disk, directories),
        "kvm": lambda: asyncio.to_thread(_kvm, kvm),
        "systemd": lambda: _systemd(systemd),
        "images": lambda: _default(assets, default),
    }


def statuses(service: str, seen: Sequence[Subsystem]) -> dict[str, bool]:
    """Return what serves by its name in grpc.health.v1.Health; `service` does as its store does."""
    well = {one.name: one.ok for one in seen}
    return {service: well["store"]} | {f"nexus.vmm.{name}": ok for name, ok in well.items()}


async def _store(store: Store) -> str:
    began = time.monotonic()
    try:
        await store.beat()
    except sqlite3.Error as error:
        raise Unwell(f"the database cannot be written ({error}); see recovery.md") from error
    return f"written and read in {(time.monotonic() - began) * 1e3:.0f} ms"


def _disk(directories: Iterable[Path]) -> str:
    """Look at each file system once, under the first of the directories on it. Blocks."""
    first: dict[int, Path] = {}
    for directory in directories:
        first.setdefault(directory.stat().st_dev, directory)
    return ", ".join(map(_room, first.values()))


def _room(directory: Path) -> str:
    found = os.statvfs(directory)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    told = f"{free / _GIB:.1f} of {size / _GIB:.1f} GiB free in {directory}"
    if found.f_flag & os.ST_RDONLY:
        raise Unwell(f"{directory} is read-only; the kernel's log says why, mount it again")
    if free < min(LEAST_BYTES, size * LEAST_SHARE):
        raise Unwell(f"only {told}; delete VMs, or make room there")
    # A file system that counts no files (btrfs) has room for any number.
    if found.f_files and found.f_favail < LEAST_FILES:
        raise Unwell(f"room for {found.f_favail} more files in {directory}; delete some there")
    return told


def _kvm(device: Path) -> str:
    if not device.exists():
        raise Unwell(
            "the kernel offers no /dev/kvm; load the module kvm_intel or kvm_amd, and turn "
            "virtualization on in the machine's firmware"
        )
    return "the kernel offers /dev/kvm"


async def _systemd(systemd: Systemd) -> str:
    return f"systemd {await systemd.version()} answers"


async def _default(assets: Assets, default: Callable[[], Awaitable[Spec]]) -> str:
    try:
        spec = await default()
    except sqlite3.Error as error:
        raise Unwell(f"what the default is cannot be read ({error})") from error
    return await asyncio.to_thread(_images, assets, spec)


def _images(assets: Assets, default: Spec) -> str:
    """Look whether a VM can be made for which nothing is asked. Raises NotFound. Blocks."""
    files = assets.find(default)
    if not files.runtime.is_file():
        raise Unwell(f"{files.runtime} is missing, without which no guest has an agent; build it")
    images, kernels = len(assets.images()), len(assets.kernels())
    return f"{default.image} on {default.kernel}, of {images} images and {kernels} kernels"
