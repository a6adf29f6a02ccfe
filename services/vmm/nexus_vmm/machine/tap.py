"""A VM's TAP, as far as it is seen without privilege: below /sys/class/net.

(ABI/testing/sysfs-class-net and sysfs-class-net-statistics; linux/if_tun.h and drivers/net/tun.c.)
"""

from __future__ import annotations

import asyncio
from pathlib import Path

DEVICES = Path("/sys/class/net")

_COUNTERS = ("rx_packets", "tx_packets")
_PERSISTENT = 0x0800
_FIRST_LOOK = 0.005
_LONGEST_WAIT = 0.25


def packets(tap: str, devices: Path = DEVICES) -> int:
    """Return how many packets the TAP has carried, both ways; 0 if there is none. Blocks.

    The counters begin anew with the device, so a smaller number than before is traffic as well.
    """
    try:
        return sum(int((devices / tap / "statistics" / name).read_text()) for name in _COUNTERS)
    except OSError:  # it is not there, or just being removed
        return 0


def obstacle(tap: str, uid: int, devices: Path = DEVICES) -> str:
    """Return why a process of the user `uid` could not open the TAP, or "". Blocks.

    netd has a TAP open from its making until it is in place, and then lets it be persistent; a TAP
    has a carrier while a process has it open, and only one can (EBUSY).
    """
    device = devices / tap
    try:
        owner, flags = int(_read(device, "owner")), int(_read(device, "tun_flags"), 16)
    except FileNotFoundError:
        return "there is none; netd makes it (is nexus-netd running?)"
    except OSError:
        return "it is just being removed"
    if owner != uid:
        return f"it belongs to the user {owner}, not to the VM's, {uid}; netd hands it over"
    if not flags & _PERSISTENT or _has_carrier(device):
        return "a process has it open"
    return ""


async def until_free(tap: str, uid: int, seconds: float, devices: Path = DEVICES) -> str:
    """Wait until nothing keeps the user's process from opening the TAP; return what still does.

    No event tells of a device's owner and flags, so this looks again and again, ever more rarely.
    """
    left = ""
    pause = _FIRST_LOOK
    try:
        async with asyncio.timeout(seconds):
            while left := await asyncio.to_thread(obstacle, tap, uid, devices):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_WAIT)
    except TimeoutError:
        return left
    return ""


def _read(device: Path, name: str) -> str:
    return (device / name).read_text()


def _has_carrier(device: Path) -> bool:
    try:
        return _read(device, "carrier").strip() == "1"
    except OSError:  # EINVAL: the device is down
        return False
