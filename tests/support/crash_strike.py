"""Strikes once. Runs in the dev host, with Python's standard library alone.

    crash_strike.py VICTIM ID SECONDS

says "armed", waits for a line, and kills: vmm SECONDS after it; the launcher, the jailer or
Firecracker of the VM ID SECONDS after it is first seen; or has systemd kill, stop or restart the
VM's unit. Says what it did. With "fresh" before VICTIM, not a process that was there already.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROLES = {"launcher": "nexus-vm-launch", "jailer": "jailer", "firecracker": "firecracker"}
"""The victims that are processes of a VM's unit, and their names (proc(5), comm)."""

_SLICE = Path("/sys/fs/cgroup/nexus.slice/nexus-vms.slice")
_WATCH_SECONDS = 30


def processes(vm_id):
    """Return the processes of a VM's unit, the oldest first."""
    pids = []
    for path in _SLICE.glob(f"nexus-vm@{vm_id}.service/**/cgroup.procs"):
        try:
            pids += map(int, path.read_text().split())
        except OSError:
            continue
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
            pid = next((pid for pid in processes(vm_id) if pid not in old), 0)
        if _comm(pid) == name:
            return pid
        time.sleep(0.001)
    return 0


def _kill(pid, name):
    if _comm(pid) == name:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return f"killed {name}"
    return f"{name} was gone"


def main(arguments):
    fresh = arguments[0] == "fresh"
    victim, vm_id, seconds = arguments[-3], arguments[-2], float(arguments[-1])
    show = ["systemctl", "show", "-P", "MainPID", "nexus-vmm"]
    vmm = int(subprocess.run(show, capture_output=True, check=True).stdout)
    old = processes(vm_id) if fresh else []
    print("armed", flush=True)
    sys.stdin.readline()
    if victim in ROLES:
        pid = _first(vm_id, ROLES[victim], old)
        time.sleep(seconds)
        print(_kill(pid, ROLES[victim]))
        return
    time.sleep(seconds)
    if victim == "vmm":
        os.kill(vmm, signal.SIGKILL)
        print("killed vmm")
        return
    verb = {"kill": ["kill", "--signal=KILL"]}.get(victim, [victim])
    command = ["systemctl", *verb, f"nexus-vm@{vm_id}"]
    done = subprocess.run(command, capture_output=True, check=False)
    print(f"systemctl {victim}: {done.returncode}")


if __name__ == "__main__":
    main(sys.argv[1:])
