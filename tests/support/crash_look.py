"""Tells all that there is of VMs. Runs in the dev host, with Python alone."""

import sqlite3
import subprocess
from pathlib import Path

_SLICE = Path("/sys/fs/cgroup/nexus.slice/nexus-vms.slice")
_HOMES = Path("/var/lib/nexus/vms")
_RUNS = Path("/run/nexus/vms")


def _rows(service, query):
    path = f"file:/var/lib/nexus/{service}/{service}.db?mode=ro"
    database = sqlite3.connect(path, uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def _is_id(name):
    return len(name) == 13 and "." not in name


def _vm_id(unit):
    return unit.partition("@")[2].partition(".")[0]


def _units():
    keys = "Id,ActiveState,InvocationID,MainPID"
    show = ["systemctl", "show", "-p", keys, "--all", "nexus-vm@*.service"]
    text = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    blocks = [
        dict(line.split("=", 1) for line in block.split("\n"))
        for block in text.strip().split("\n\n")
        if block
    ]
    return {
        _vm_id(unit["Id"]): [unit["ActiveState"], unit["InvocationID"], int(unit["MainPID"])]
        for unit in blocks
    }


def _processes():
    """Return the processes by name and by VM, and those that belong to none."""
    found = {"firecracker": {}, "rotatelogs": {}, "jailer": {}}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "comm").read_text().rstrip("\n")
            if name in found:
                vm_id = _vm_id((path / "cgroup").read_text())
                found[name].setdefault(vm_id, []).append(int(path.name))
        except OSError:
            continue  # it has ended
    return found


def _aliases():
    for path in Path("/sys/class/net").glob("*/ifalias"):
        try:
            yield path.read_text().strip()
        except OSError:
            continue


def look():
    """Return what the stores have, and what there is."""
    return {
        "vms": _rows("vmm", "SELECT id, name, state, goal, boot, pid FROM vms"),
        "ports": [vm_id for (vm_id,) in _rows("netd", "SELECT vm_id FROM ports")],
        "units": _units(),
        "processes": _processes(),
        "cgroups": [_vm_id(path.name) for path in _SLICE.glob("nexus-vm@*.service")],
        "homes": [path.name for path in _HOMES.iterdir() if _is_id(path.name)],
        "runs": [path.name for path in _RUNS.iterdir() if _is_id(path.name)],
        "taps": [_vm_id(alias) for alias in _aliases() if alias.startswith("nexus-vm@")],
    }
