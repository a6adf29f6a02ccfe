"""What it takes to become Firecracker for one VM, in order."""

import os

from nexus_launch import Refused, cgroup, console, handover
from nexus_launch.identity import is_vm_id, number_of, vm_uid

VMS = "/var/lib/nexus/vms"
RUN = "/run/nexus/vms"
JAIL = "/usr/lib/nexus/jail"
"""Empty, but in the unit: there a file system in memory, into which systemd bound what is the
VM's. Where the jailer wants it: below the program's name and the id."""

CGROUP = "/proc/self/cgroup"
PROGRAM = "/usr/lib/nexus/bin/firecracker"
_JAILER = "/usr/lib/nexus/bin/jailer"

_USERS = "/etc/passwd"
_GROUPS = "/etc/group"

_EX_USAGE = 64
_EX_NOPERM = 77
"""sysexits.h; vmm tells by the second that its journal says more (nexus_vmm.machine.microvm)."""

_FILES = 1024
"""Handles of Firecracker: mostly connections into the guest."""


def launch(vm_id: str) -> None:
    """Become the jailer, which becomes Firecracker. Raises Refused, OSError, ValueError."""
    uid = vm_uid(vm_id)
    vmm = number_of("nexus-vmm", _USERS)
    vm_gid = number_of("nexus-vm", _GROUPS)
    vsock_gid = number_of("nexus-vsock", _GROUPS)
    writer = number_of("nexus-console", _USERS), number_of("nexus-console", _GROUPS)
    root = f"{JAIL}/{os.path.basename(PROGRAM)}/{vm_id}/root"

    home = handover.open_home(f"{VMS}/{vm_id}", vmm)
    vcpus, memory_mib, serial = handover.read_machine(home, vmm)
    with open(CGROUP, encoding="ascii") as file:
        unit = cgroup.unit_directory(vm_id, file.read())
    cgroup.enter(unit, cgroup.limits(vcpus, memory_mib))
    size = handover.hand_over_disk(f"{root}/disk", uid, vm_gid, vmm)
    handover.hand_over_directory(f"{root}/api", uid, vm_gid)
    handover.hand_over_directory(f"{root}/vsock", uid, vsock_gid)
    log = console.open_directory(home, vmm, writer[1])
    os.dup2(console.start_writer(unit, log, *writer), 1)
    if serial:
        os.dup2(handover.make_serial(f"{RUN}/{vm_id}/serial", vm_gid), 0)
    # Who may connect is up to the directories of the sockets.
    os.umask(0)
    os.execv(_JAILER, arguments(vm_id, uid, size))  # noqa: S606  # no shell wanted


def arguments(vm_id: str, uid: int, disk_bytes: int) -> list[str]:
    """Return the jailer's command line. No file may grow past the disk."""
    return [
        *("jailer", "--id", vm_id, "--exec-file", PROGRAM, "--chroot-base-dir", JAIL),
        *("--uid", str(uid), "--gid", str(uid)),
        *("--resource-limit", f"fsize={disk_bytes}", "--resource-limit", f"no-file={_FILES}"),
        *("--", "--api-sock", "/api/api.sock", "--level", "Warn"),
    ]


def main(argv: list[str]) -> int:
    """Launch the VM whose id is the only argument. Returns the exit code, if it returns."""
    vm_id = argv[1] if len(argv) == 2 else ""
    if not is_vm_id(vm_id):
        os.write(2, f"nexus-vm-launch: {vm_id!r} is no VM id\n".encode())
        return _EX_USAGE
    try:
        launch(vm_id)
    except (Refused, OSError, ValueError) as error:
        os.write(2, f"nexus-vm-launch: VM {vm_id} is not started: {error}\n".encode())
    return _EX_NOPERM
