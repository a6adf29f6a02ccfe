"""Links' names and indexes, in the network namespace of the calling thread."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from typing import TYPE_CHECKING

from nexus_netd.kernel import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SIOCGIFNAME = 0x8910
_IFREQ = struct.Struct("=16si20x")


def index_of(name: str) -> int | None:
    """Return the index of a link; None if there is no such link."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def need(name: str) -> int:
    """Return the index of a link. Raises KernelError ENODEV."""
    index = index_of(name)
    if index is None:
        raise KernelError(errno.ENODEV, f"there is no link {name}")
    return index


def name_of(index: int) -> str | None:
    """Return the name of a link; None if it has gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def names_of(indexes: Iterable[int]) -> Iterator[tuple[int, str]]:
    """Return the names of many links; those that have gone are left out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        for index in indexes:
            with contextlib.suppress(OSError):
                found = fcntl.ioctl(asking, _SIOCGIFNAME, _IFREQ.pack(b"", index))
                yield index, _IFREQ.unpack(found)[0].rstrip(b"\0").decode()


def shown(index: int) -> str:
    """Return the name of a link, or its number if it has gone."""
    return name_of(index) or f"link {index}"
