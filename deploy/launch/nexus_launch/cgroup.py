"""The limits of a VM: two leaves below the cgroup of its unit, which systemd leaves to us.

`vm` holds the launcher, jailer and Firecracker in turn, `log` the console's log writer. systemd
sees an OOM kill in a leaf in the unit's memory.events, which counts what is below (cgroup-v2,
kernel documentation). A process may be in a cgroup with controllers below it only at the root, so
the unit's own is left before they are turned on.
"""

import os

from nexus_launch import Refused

_MIB = 1024 * 1024
_PERIOD = 100_000  # microseconds

OVERHEAD_MIB = 64
"""Of Firecracker, its copy in the jail, its sockets and the page cache of its disks."""

_MEMORY_SHARE = 64
"""A 64th of the guest's memory goes to page tables of host and guest and to KVM's maps: each of
them takes 8 bytes for 4 KiB."""

_OTHER_THREADS = 8
"""Firecracker's main and API threads, and the threads that KVM runs for it in its cgroup."""


def unit_directory(vm_id: str, said: str) -> str:
    """Return the cgroup of the VM's unit, from what /proc/self/cgroup says."""
    path = said.strip().rpartition("\n")[2].removeprefix("0::")
    if not path.endswith(f"/nexus-vm@{vm_id}.service") or "/../" in path:
        raise Refused(f"/proc/self/cgroup: {said!r} is no cgroup (version 2) of the VM's unit")
    return "/sys/fs/cgroup" + path


def limits(vcpus: int, memory_mib: int) -> dict[str, str]:
    """Return what the leaf `vm` gets, by file."""
    memory = memory_mib + OVERHEAD_MIB + memory_mib // _MEMORY_SHARE
    return {
        "memory.max": str(memory * _MIB),
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "cpu.max": f"{vcpus * _PERIOD + _PERIOD // 2} {_PERIOD}",
        "pids.max": str(vcpus + _OTHER_THREADS),
    }


LOG_LIMITS = {"memory.max": str(16 * _MIB), "pids.max": "1"}
"""Of the leaf `log`."""


def enter(unit: str, vm_limits: dict[str, str]) -> None:
    """Make both leaves with their limits, and move this process into `vm`."""
    for leaf in ("vm", "log"):
        os.mkdir(f"{unit}/{leaf}")
        os.chmod(f"{unit}/{leaf}", 0o711)  # noqa: S103  # vmm reads there what the VM uses
    join(unit, "vm")
    with open(f"{unit}/cgroup.controllers", encoding="ascii") as file:
        offered = set(file.read().split())
    missing = {"cpu", "memory", "pids"} - offered
    if missing:
        raise Refused(f"{unit}: systemd did not delegate {', '.join(sorted(missing))}")
    _write(f"{unit}/cgroup.subtree_control", "+cpu +memory +pids")
    for leaf, values in (("vm", vm_limits), ("log", LOG_LIMITS)):
        for name, value in values.items():
            # A kernel without swap accounting has no such file, and then no swap is counted.
            if name != "memory.swap.max" or os.path.exists(f"{unit}/{leaf}/{name}"):
                _write(f"{unit}/{leaf}/{name}", value)


def join(unit: str, leaf: str) -> None:
    """Move this process into a leaf."""
    _write(f"{unit}/{leaf}/cgroup.procs", "0")


def _write(path: str, value: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, value.encode())
    finally:
        os.close(handle)
