"""Where the files of a VM are, and the directories that hold them.

vmm has no capability: it gives a directory to the VM's group by the set-group-id bit that it
inherits, and to the vsock group by being a member of it.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.ids import is_vm_id

if TYPE_CHECKING:
    from pathlib import Path

API_SOCKET = "api.sock"
VSOCK = "vsock/agent.sock"
"""Both below the unit's working directory, which is `Places.run(id)`."""


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
    """Remove `path` and all below it, following no link; nothing happens if it is not there."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        # Either it was not there, or something in it vanished meanwhile: then look again.
        if path.exists():
            shutil.rmtree(path)
