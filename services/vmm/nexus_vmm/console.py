"""The serial console of a VM, as the log writer of its unit keeps it.

The writer (svlogd) appends to `current` and renames it to `@` and a TAI64N time stamp when it is
full, so the names of old files sort by age. It writes as the VM's user: whoever broke out of
Firecracker may put anything here, so nothing but regular files is opened, and no link followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1024 * 1024
"""Bytes of the log that are kept (see GetConsoleLog)."""

_MAX_FILES = 64


def read_console(directory: Path, tail_bytes: int) -> bytes:
    """Return the last `tail_bytes` of the log, or all that is kept for 0. Blocks on the disk."""
    wanted = min(tail_bytes or LIMIT, LIMIT)
    with contextlib.ExitStack() as stack:
        # All are opened before one is read: a rotation in between takes nothing away.
        handles = []
        for path in _files(directory):
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, handle)
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    handles.append(handle)
        pieces: list[bytes] = []
        for handle in reversed(handles):
            piece = _tail(handle, wanted)
            pieces.append(piece)
            wanted -= len(piece)
    return b"".join(reversed(pieces))


def _files(directory: Path) -> list[Path]:
    """Return the log's files, oldest first."""
    try:
        old = sorted(path for path in directory.iterdir() if path.name.startswith("@"))
    except FileNotFoundError:
        return []
    return [*old[-_MAX_FILES:], directory / "current"]


def _tail(handle: int, wanted: int) -> bytes:
    if wanted <= 0:
        return b""
    size = os.fstat(handle).st_size
    return os.pread(handle, wanted, max(0, size - wanted))
