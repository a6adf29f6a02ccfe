"""Where the files of a VM are, and the directories that hold them.

vmm has no capability: it gives a directory to the VM's group by the set-group-id bit that it
inherits, and to the vsock group by being a member of it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

from nexus_rpc.ids import is_vm_id

if TYPE_CHECKING:
    from pathlib import Path

API_SOCKET = "api.sock"
VSOCK = "vsock/agent.sock"
"""Both below the unit's working directory, which is `Places.run(id)`."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Places:
    """The directories of all VMs; `vsock_gid` is the group that may dial into guests."""

    vms_dir: Path
    run_dir: Path
    vsock_gid: int

    def home(self, vm_id: str) -> Path:
        """Return the directory that lives as long as the VM."""
        return self.vms_dir / vm_id

    def disk(self, vm_id: str) -> Path:
        """Return the VM's writable disk."""
        return self.home(vm_id) / "overlay.img"

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


def vm_ids(directory: Path) -> set[str]:
    """Return the ids that have an entry in `directory`."""
    return {entry.name for entry in os.scandir(directory) if is_vm_id(entry.name)}


def make_directory(path: Path, mode: int, gid: int = -1) -> None:
    """Make `path` with exactly `mode`, or bring an existing one to it. Raises OSError."""
    path.mkdir(exist_ok=True)
    if gid not in (-1, path.stat().st_gid):
        os.chown(path, -1, gid)
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def remove_directory(path: Path) -> None:
    """Remove `path` and all below it, following no link; nothing happens if it is not there.

    Whoever broke out of Firecracker may have filled it: neither depth nor number costs anything
    but time, so no recursion, which ends at Python's limit, and no list of names.
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
