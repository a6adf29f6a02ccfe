"""TAP devices by ioctl(2) on /dev/net/tun: rtnetlink cannot make them.

A TAP lives as long as its descriptor, until it is made persistent (linux/if_tun.h,
Documentation/networking/tuntap.rst).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError
from nexus_rpc.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterable


PREFIX = "nexus"
"""What TAPs' names begin with; a number follows."""

_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_TUNGETIFF = 0x800454D2
_IFF_TAP, _IFF_PERSIST, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0002, 0x0800, 0x1000, 0x8000
_IFREQ = struct.Struct("16sH22x")


def create(owner: int, names: Iterable[str]) -> tuple[int, str]:
    """Make a TAP for the uid `owner`, under the first of `names` that is free.

    Returns its descriptor and its name. The kernel could choose ("nexus%d"), but looks at all
    links' names for it. Raises FailedPrecondition (TUN_UNAVAILABLE), KernelError; EBUSY when all
    names are taken.
    """
    descriptor = _open()
    name = ""
    try:
        name = _claim(descriptor, names)
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
    except OSError as error:
        os.close(descriptor)
        raise KernelError(error.errno, f"make TAP {name}: {error.strerror}") from error
    except BaseException:
        os.close(descriptor)
        raise
    # A port of a bridge needs no IPv6 of its own, and with it each of its changes makes the kernel
    # walk all IPv6 routes. Where that cannot be said it is slower, no more.
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    return descriptor, name


def persist(descriptor: int, name: str) -> None:
    """Let the TAP outlive its descriptor. Raises KernelError."""
    try:
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    except OSError as error:
        raise KernelError(error.errno, f"keep TAP {name}: {error.strerror}") from error


def give(name: str, owner: int) -> bool:
    """Make a persistent TAP the uid's `owner`; False while a process has it open, or it is missing.

    Raises FailedPrecondition (TUN_UNAVAILABLE), KernelError.
    """
    descriptor = _open()
    try:
        asked = _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(descriptor, _TUNSETIFF, asked)
        _, flags = _IFREQ.unpack(fcntl.ioctl(descriptor, _TUNGETIFF, asked))
        if not flags & _IFF_PERSIST:
            return False  # it was missing: this one was made just now, and goes with its descriptor
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
    except OSError as error:
        if error.errno == errno.EBUSY:  # a TAP of one queue has one holder
            return False
        raise KernelError(error.errno, f"give TAP {name} away: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return True


def _open() -> int:
    try:
        return os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition(
            "TUN_UNAVAILABLE",
            f"/dev/net/tun cannot be opened ({error.strerror}): load the module tun, and let "
            "netd's user read and write the device (mode 0666)",
        ) from error


def _claim(descriptor: int, names: Iterable[str]) -> str:
    taken = ""
    for name in names:
        # EXCL: else a name that exists would be joined, whoever it belongs to.
        asked = _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, asked)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise KernelError(error.errno, f"make TAP {name}: {error.strerror}") from error
            taken = name
        else:
            return name
    raise KernelError(errno.EBUSY, f"make TAP {taken}: there is one of that name")
