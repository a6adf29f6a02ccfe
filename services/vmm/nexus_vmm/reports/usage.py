"""What a live VM uses of the host, as the kernel counts it: by its cgroup, its disk and its TAP.

The counters of a cgroup begin anew with each boot of the VM, those of a TAP with the device.
Formats: Documentation/admin-guide/cgroup-v2.rst and Documentation/ABI/testing/sysfs-class-net of
the kernel. io.stat is there only where the controller is enabled.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexus_vmm.places import Places
    from nexus_vmm.vm import Vm

    Usage = dict[tuple[str, str], float]
    """Values by figure (see `stats.FIGURES`) and direction, "" where a figure has none. What the
    kernel does not tell is left out."""

# A dash in the name of a slice makes it a child (systemd.slice(5)).
SLICE = Path("/sys/fs/cgroup/nexus.slice/nexus-vms.slice")
DEVICES = Path("/sys/class/net")

_BLOCK = 512  # the unit of st_blocks (stat(2))
_MICRO = 1e6
_MOST = 64 * 1024
# Of a TAP's view: what the guest sends is received by the host.
_NETWORK = {"egress": "rx_bytes", "ingress": "tx_bytes"}
# The launcher limits the machine's own cgroup, below the unit's: what a limit took is told there.
_CPU = {
    "cpu_seconds": ("cpu.stat", "usage_usec"),
    "cpu_throttled_seconds": ("vm/cpu.stat", "throttled_usec"),
}
_MEMORY = {"memory_bytes": "memory.current", "memory_limit_bytes": "vm/memory.max"}
_IO = {"read": "rbytes", "write": "wbytes"}


@dataclass(frozen=True)
class Meter:
    """Reads what VMs use. Blocks; nothing of it waits for a disk."""

    places: Places
    cgroups: Path = SLICE
    devices: Path = DEVICES

    def read(self, vm: Vm) -> Usage:
        """Return what `vm` uses. Raises OSError."""
        unit = f"{self.cgroups}/nexus-vm@{vm.id}.service"
        usage = _cpu(unit) | _memory(unit) | _io(unit) | _disk(self.places.disk(vm.id))
        if vm.spec.network:
            usage |= _network(f"{self.devices}/{vm.spec.network.tap}/statistics")
        return usage


def _cpu(unit: str) -> Usage:
    found = {name: _pairs(f"{unit}/{file}").get(key) for name, (file, key) in _CPU.items()}
    return {(name, ""): number / _MICRO for name, number in found.items() if number is not None}


def _memory(unit: str) -> Usage:
    found = {name: _number(f"{unit}/{path}") for name, path in _MEMORY.items()}
    found["oom_kills"] = _pairs(f"{unit}/memory.events").get("oom_kill")
    return {(name, ""): number for name, number in found.items() if number is not None}


def _io(unit: str) -> Usage:
    """Return the bytes of the device that carried most: a device below it carries the same ones."""
    lines = _text(f"{unit}/io.stat").splitlines()
    devices = [dict(word.split("=") for word in line.split()[1:]) for line in lines]
    return {
        ("io_bytes", direction): max(int(device.get(key, 0)) for device in devices)
        for direction, key in _IO.items()
        if devices
    }


def _disk(path: Path) -> Usage:
    try:
        return {("disk_bytes", ""): path.stat().st_blocks * _BLOCK}
    except FileNotFoundError:
        return {}


def _network(statistics: str) -> Usage:
    found = {direction: _number(f"{statistics}/{name}") for direction, name in _NETWORK.items()}
    return {
        ("network_bytes", direction): number
        for direction, number in found.items()
        if number is not None
    }


def _pairs(path: str) -> dict[str, int]:
    """Return the numbers of a file of lines "KEY NUMBER", by key."""
    return {key: int(number) for key, number in map(str.split, _text(path).splitlines())}


def _number(path: str) -> int | None:
    """Return the number in a file, or None where there is none: no limit is written "max"."""
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _text(path: str) -> str:
    """Return what is in a file of the kernel's, or "" if there is none (any more)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(handle, _MOST).decode()
    except OSError as error:
        if error.errno == errno.ENODEV:  # the cgroup or the device went away meanwhile
            return ""
        raise
    finally:
        os.close(handle)
