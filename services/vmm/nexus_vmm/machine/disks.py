"""The writable disk of a VM: a sparse file that the guest makes a file system on.

A disk appears under its name only when it is whole, so a kill half-way leaves nothing that looks
like one. What is made is not synced to the host's disk: what a power loss takes, the first start
makes again, and what a guest writes is synced as the guest asks. What is removed is synced: the
record goes after it, and a disk that came back would be nobody's.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from nexus_rpc.errors import AlreadyExists, ResourceExhausted
from nexus_vmm.places import make_directory, remove_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nexus_vmm.places import Places
    from nexus_vmm.vm import Spec

_MIB = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_home(places: Places, vm_id: str, disk_mib: int) -> None:
    """Make the VM's directory with its disk and console log; what is there already stays.

    Raises ResourceExhausted (DISK_FULL, DISK_UNWRITABLE), and AlreadyExists (VM_ID_TAKEN) for a
    disk of another size that holds data. Blocks on the disk.
    """
    with _told(places.vms_dir, f"a disk of {disk_mib} MiB"):
        make_directory(places.home(vm_id), 0o700)
        # Its group becomes that of the log writers when the VM starts.
        make_directory(places.console(vm_id), 0o770)
        _make_disk(places.disk(vm_id), disk_mib * _MIB)


def grow_disk(places: Places, vm_id: str, disk_mib: int) -> None:
    """Make the VM's disk `disk_mib` MiB large, with zeros; one that is larger stays as it is.

    Raises ResourceExhausted (DISK_FULL, DISK_UNWRITABLE). Blocks on the disk.
    """
    path = places.disk(vm_id)
    size = disk_mib * _MIB
    if path.stat().st_size >= size:
        return
    with _told(places.vms_dir, f"a disk of {disk_mib} MiB"):
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.ftruncate(handle, size)
        finally:
            os.close(handle)


def write_machine(places: Places, vm_id: str, spec: Spec) -> None:
    """Tell the launcher of the VM's limits: vCPUs, MiB of memory, and 1 for serial input.

    Takes no room where it was told already. Raises ResourceExhausted (DISK_FULL,
    DISK_UNWRITABLE). Blocks on the disk.
    """
    path = places.machine(vm_id)
    line = f"{spec.vcpu_count} {spec.memory_mib} {spec.serial_input:d}\n"
    with suppress(FileNotFoundError):
        if path.read_text() == line:
            return
    with _told(places.vms_dir, "the limits of a VM"):
        fresh = path.with_suffix(".new")
        fresh.write_text(line)
        fresh.rename(path)


@contextmanager
def _told(directory: Path, what: str) -> Iterator[None]:
    """Turn an error of a disk that takes no more into one that says what for."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ResourceExhausted(
                "DISK_UNWRITABLE", f"{directory} is on a disk that is read-only; mend that"
            ) from error
        if error.errno not in _FULL:
            raise
        raise ResourceExhausted(
            "DISK_FULL",
            f"no room in {directory} for {what} ({error.strerror}); "
            "delete VMs, or ask for a smaller disk",
        ) from error


def remove_home(places: Places, vm_id: str) -> None:
    """Remove the VM's directory and disk, for good: no power loss brings them back.

    Nothing happens if there is none. Blocks on the disk.
    """
    remove_directory(places.home(vm_id))
    # Also where nothing was there: who removed it may have been killed before this.
    directory = os.open(places.vms_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def discard_home(places: Places, vm_id: str) -> bool:
    """Remove the VM's directory if its disk is blank; return whether it is gone.

    A disk that was never written has no blocks (stat(2), st_blocks).
    """
    try:
        written = places.disk(vm_id).stat().st_blocks > 0
    except FileNotFoundError:
        written = False
    if not written:
        remove_home(places, vm_id)
    return not written


def _make_disk(path: Path, size: int) -> None:
    with suppress(FileNotFoundError):
        known = path.stat()
        if known.st_size == size:
            return
        if known.st_blocks:
            raise AlreadyExists(
                "VM_ID_TAKEN",
                f"{path} holds the data of an earlier VM, and has {known.st_size // _MIB} MiB: ask "
                "for a disk of that size to have it, or remove it",
            )
    half = path.with_suffix(".new")
    handle = os.open(half, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o660)
    try:
        os.ftruncate(handle, size)
        os.fchmod(handle, 0o660)
    finally:
        os.close(handle)
    half.rename(path)
