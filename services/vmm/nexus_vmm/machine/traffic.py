"""What a VM's TAP has carried, from the kernel's counters (ABI/testing/sysfs-class-net-statistics).

They begin anew with the device, so a smaller number than before is traffic as well.
"""

from __future__ import annotations

from pathlib import Path

DEVICES = Path("/sys/class/net")

_COUNTERS = ("rx_packets", "tx_packets")


def packets(tap: str, devices: Path = DEVICES) -> int:
    """Return how many packets the TAP has carried, both ways; 0 if there is none. Blocks."""
    try:
        return sum(int((devices / tap / "statistics" / name).read_text()) for name in _COUNTERS)
    except OSError:  # it is not there, or just being removed
        return 0
