"""TAP devices by ioctl(2) on /dev/net/tun: rtnetlink cannot make them.

A TAP lives as long as its descriptor, until it is made persistent (linux/if_tun.h,
Documentation/networking/tuntap.rst).
"""

from __future__ import annotations

import fcntl
import os
import struct

from nexus_netd.kernel import KernelError

_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x8000
_IFREQ = struct.Struct("16sH22x")
_TEMPLATE = "nexus%d"


def create(owner: int, name: str | None) -> tuple[int, str]:
    """Make a TAP for the uid `owner`; return its descriptor and its name.

    Without `name` the kernel picks the first free of nexus0, nexus1 and so on. Raises
    KernelError; EBUSY when `name` is taken.
    """
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(
            error.errno,
            f"/dev/net/tun cannot be opened ({error.strerror}): load the module tun, mode 0666",
        ) from error
    try:
        # EXCL: else a name that exists would be joined, whoever it belongs to.
        asked = _IFREQ.pack((name or _TEMPLATE).encode(), _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL)
        given: str = (
            _IFREQ.unpack(fcntl.ioctl(descriptor, _TUNSETIFF, asked))[0].rstrip(b"\0").decode()
        )
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
    except OSError as error:
        os.close(descriptor)
        raise KernelError(error.errno, f"make TAP {name or _TEMPLATE}: {error.strerror}") from error
    return descriptor, given


def persist(descriptor: int, name: str) -> None:
    """Let the TAP outlive its descriptor. Raises KernelError."""
    try:
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except OSError as error:
        raise KernelError(error.errno, f"keep TAP {name}: {error.strerror}") from error
