"""Links' names and indexes, in the network namespace of the calling thread."""

from __future__ import annotations

import errno
import socket

from nexus_netd.kernel import KernelError


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


def shown(index: int) -> str:
    """Return the name of a link, or its number if it has gone."""
    return name_of(index) or f"link {index}"
