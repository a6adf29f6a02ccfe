"""Where the files of a VM are, on the host and in the jail of its process.

What lives as long as the VM is vmm's; what lives as long as the process systemd makes and removes,
and the launcher (`deploy/launch`) gives to the process and to those who reach it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from nexus_rpc.ids import is_vm_id, vm_uid

if TYPE_CHECKING:
    from collections.abc import Callable

API_SOCKET = "api/api.sock"
VSOCK = "vsock/agent.sock"
"""Both below `Places.run(id)` on the host, and below the root in the jail."""

JAIL_DISK = Path("/disk")
JAIL_GUEST = Path("/guest")
"""The VM's disk and the guest directory, as its process sees them (see nexus-vm@.service)."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Places:
    """The directories of all VMs; `uid` says which user the process of a VM is."""

    vms_dir: Path
    run_dir: Path
    uid: Callable[[str], int] = vm_uid

    def home(self, vm_id: str) -> Path:
        """Return the directory that lives as long as the VM."""
        return self.vms_dir / vm_id

    def disk(self, vm_id: str) -> Path:
        """Return the VM's writable disk."""
        return self.home(vm_id) / "overlay.img"

    def machine(self, vm_id: str) -> Path:
        """Return the file that tells the launcher of the VM's limits."""
        return self.home(vm_id) / "machine"

    def console(self, vm_id: str) -> Path:
        """Return the directory of the console log."""
        return self.home(vm_id) / "console"

    def run(self, vm_id: str) -> Path:
        """Return the directory that lives as long as the VM's process."""
        return self.run_dir / vm_id

    def api(self, vm_id: str) -> Path:
        """Return Firecracker's API socket."""
        return self.run(vm_id) / API_SOCKET

    def vsock(self, vm_id: str) -> Path:
        """Return Firecracker's vsock socket."""
        return self.run(vm_id) / VSOCK

    def serial(self, vm_id: str) -> Path:
        """Return the FIFO that is Firecracker's standard input where the VM has serial input."""
        return self.run(vm_id) / "serial"


def vm_ids(directory: Path) -> set[str]:
    """Return the ids that have an entry in `directory`."""
    return {entry.name for entry in os.scandir(directory) if is_vm_id(entry.name)}


def make_directory(path: Path, mode: int) -> None:
    """Make `path` with exactly `mode`, or bring an existing one to it. Raises OSError."""
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def remove_directory(path: Path) -> None:
    """Remove `path` and all below it, following no link; nothing happens if it is not there.

    Whoever took over a log writer may have filled it: neither depth nor number costs anything but
    time, so no recursion, which ends at Python's limit, and no list of names.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        while _remove_entries(top, top):
            pass
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        path.rmdir()


def _remove_entries(top: int, parent: int) -> bool:
    """Remove what is in `parent`, its directories by way of `top`. Returns if there was any."""
    found = False
    with os.scandir(parent) as entries:
        for entry in entries:
            found = True
            with suppress(FileNotFoundError):  # it vanished meanwhile
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=parent)
                elif parent == top:
                    _remove_child(top, entry.name)
                else:
                    os.rename(entry.name, token_hex(16), src_dir_fd=parent, dst_dir_fd=top)
    return found


def _remove_child(top: int, name: str) -> None:
    """Remove a directory in `top`; the directories in it move up into `top`."""
    child = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        while _remove_entries(top, child):
            pass
    finally:
        os.close(child)
    os.rmdir(name, dir_fd=top)
