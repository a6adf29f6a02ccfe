"""The port to the host as something with room: what VMs may use of it at most."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_MIB = 1024 * 1024


class Host(Protocol):
    """What the host has. The methods may block; they are called on the database's thread."""

    def memory_mib(self) -> int:
        """Return its memory in MiB."""

    def vcpus(self) -> int:
        """Return how many CPUs it has."""

    def disk_mib(self) -> int:
        """Return the size in MiB of the file system that disks are on. Raises OSError."""


@dataclass(frozen=True)
class LinuxHost:
    """This host; disks are in `vms_dir`."""

    vms_dir: Path

    def memory_mib(self) -> int:
        """Return the memory that the kernel manages (sysconf(3), _SC_PHYS_PAGES)."""
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB

    def vcpus(self) -> int:
        """Return the CPUs that are online (sysconf(3), _SC_NPROCESSORS_ONLN)."""
        return os.sysconf("SC_NPROCESSORS_ONLN")

    def disk_mib(self) -> int:
        """Return the size of the file system, without what is kept for root (statvfs(3))."""
        found = os.statvfs(self.vms_dir)
        kept = found.f_bfree - found.f_bavail
        return (found.f_blocks - kept) * found.f_frsize // _MIB
