"""Strikes once. Runs in the dev host, with Python's standard library alone."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

ROLES = {"launcher": "nexus-vm-launch", "jailer": "jailer", "firecracker": "firecracker"}
"""The victims that are processes of a VM's unit, and their names (proc(5), comm)."""

_UNITS = Path("/sys/fs/cgroup/nexus.slice/nexus-vms.slice")
_VMM = Path("/sys/fs/cgroup/system.slice/nexus-vmm.service/cgroup.procs")
_WATCH_SECONDS = 30


def put_guests_behind():
    """Let guests boot while nothing else wants the CPU: the host's one is emulated."""
    weigh = ["systemctl", "set-property", "--runtime", "nexus.slice", "CPUWeight=20"]
    subprocess.run(weigh, capture_output=True, check=True)


def aim(vm_id):
    """Return the processes that are there before the operation: vmm, and those of a VM's unit."""
    return int(_VMM.read_text()), _processes(vm_id)


def strike(victim, vm_id, seconds, vmm, old):
    """Kill vmm after so many seconds; or the launcher, the jailer or Firecracker of a VM so many
    after it is first seen, where it is not an `old` process; or have systemd kill, stop or restart
    the VM's unit. Return what was done.
    """
    if victim in ROLES:
        pid = _first(vm_id, ROLES[victim], old)
        time.sleep(seconds)
        return _kill(pid, ROLES[victim])
    time.sleep(seconds)
    if victim == "vmm":
        os.kill(vmm, signal.SIGKILL)
        return "killed vmm"
    verb = {"kill": ["kill", "--signal=KILL"]}.get(victim, [victim])
    command = ["systemctl", *verb, f"nexus-vm@{vm_id}"]
    done = subprocess.run(command, capture_output=True, check=False)
    return f"systemctl {victim}: {done.returncode}"


def kill(pid):
    """kill -9 of a process, if it is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _processes(vm_id):
    """Return the processes of a VM's unit, the oldest first."""
    pids = []
    for folder, _, _ in os.walk(_UNITS / f"nexus-vm@{vm_id}.service"):  # passes over what is gone
        with suppress(OSError):
            pids += map(int, (Path(folder) / "cgroup.procs").read_text().split())
    return sorted(pids)


def _comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def _first(vm_id, name, old):
    """Return the process once it is called `name`: launcher, jailer and Firecracker are one."""
    deadline = time.monotonic() + _WATCH_SECONDS
    pid = 0
    while time.monotonic() < deadline:
        if not _comm(pid):
            pid = next((pid for pid in _processes(vm_id) if pid not in old), 0)
        if _comm(pid) == name:
            return pid
        time.sleep(0.001)
    return 0


def _kill(pid, name):
    if _comm(pid) == name:
        kill(pid)
        return f"killed {name}"
    return f"{name} was gone"
