"""What vmm left for a VM, checked, and given to the user that the VM's process will be.

vmm may be in somebody else's hands: its files are taken for what they are, not for what they are
called. What systemd bound into the jail can be changed by no one any more, so a path there means
the same file at each look.
"""

import os
import stat

from nexus_launch import Refused

VCPUS = (1, 32)
MEMORY_MIB = (80, 65_536)
"""What a spec may ask for, least and most (nexus_vmm.config.table)."""

_MACHINE_BYTES = 64


def open_home(path: str, vmm: int) -> int:
    """Return a handle of the VM's directory, which is vmm's."""
    home = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    _check(path, os.fstat(home).st_uid == vmm, "it is not vmm's")
    return home


def read_machine(home: int, vmm: int) -> tuple[int, int, bool]:
    """Return vCPUs, memory in MiB and whether there is serial input, from the file `machine`."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open("machine", flags, dir_fd=home)
    found = os.fstat(handle)
    _check("machine", stat.S_ISREG(found.st_mode) and found.st_uid == vmm, "it is no file of vmm's")
    content = os.read(handle, _MACHINE_BYTES + 1)
    os.close(handle)
    words = content.split()
    try:
        vcpus, memory, serial = map(int, words)
    except ValueError:
        vcpus = memory = serial = -1
    _check(
        "machine",
        len(content) <= _MACHINE_BYTES
        and VCPUS[0] <= vcpus <= VCPUS[1]
        and MEMORY_MIB[0] <= memory <= MEMORY_MIB[1]
        and serial in (0, 1),
        f"{content!r} is not vCPUs, MiB of memory, and 0 or 1 for serial input",
    )
    return vcpus, memory, serial == 1


def hand_over_disk(path: str, uid: int, gid: int, vmm: int) -> int:
    """Give the disk to the VM's user and return its size in bytes.

    A disk whose owner is another VM's user is another VM's disk.
    """
    found = os.lstat(path)
    _check(path, stat.S_ISREG(found.st_mode), "it is no file")
    _check(path, found.st_nlink == 1, f"it has {found.st_nlink} names")
    _check(path, stat.S_IMODE(found.st_mode) == 0o660, f"its mode is {found.st_mode:o}")
    _check(path, found.st_uid in (vmm, uid), f"it belongs to the user {found.st_uid}")
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)
    return found.st_size


def hand_over_directory(path: str, uid: int, gid: int) -> None:
    """Let the VM's process make its socket in a fresh directory, and the group reach it."""
    # In this order whoever waits for the socket finds none, but is never refused on the way to it.
    os.chown(path, -1, gid, follow_symlinks=False)
    os.chmod(path, 0o770)  # noqa: S103  # of the two who use the socket
    os.chown(path, uid, gid, follow_symlinks=False)


def make_serial(path: str, gid: int) -> int:
    """Make the pipe of the serial console's input, for the group to write to.

    The handle reads and writes, so that the input never ends (fifo(7)). It does not block:
    Firecracker reads until nothing is left (its serial.rs), and would wait there for ever.
    """
    os.mkfifo(path, 0o600)
    os.chown(path, 0, gid)
    os.chmod(path, 0o620)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _check(what: str, right: bool, why: str) -> None:
    if not right:
        raise Refused(f"{what}: {why}")
