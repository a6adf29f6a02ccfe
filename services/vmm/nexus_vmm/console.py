"""The serial console of a VM, as the log writer of its unit keeps it.

The writer (rotatelogs, see `deploy/bin/nexus-vm-launch`) goes round a few files, and the time of
its last change tells a file's place. It writes as the VM's user: whoever broke out of Firecracker
may put anything here, so nothing but regular files is opened, and no link followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1024 * 1024
"""Bytes of the log that are kept (see GetConsoleLog)."""

_LINES = 5
_WORDS = 400
_WORDS_READ = 4096
_MAX_FILES = 16
_MAX_ENTRIES = 1024


def read_console(directory: Path, tail_bytes: int) -> bytes:
    """Return the last `tail_bytes` of the log, or all that is kept for 0. Blocks on the disk."""
    wanted = min(tail_bytes or LIMIT, LIMIT)
    pieces: list[bytes] = []
    with contextlib.ExitStack() as stack:
        # All are open before one is read: what is rotated away meanwhile can still be read.
        for handle, size in reversed(_open_all(directory, stack)):
            pieces.append(os.pread(handle, wanted, max(0, size - wanted)) if wanted else b"")
            wanted -= len(pieces[-1])
    return b"".join(reversed(pieces))


def last_words(directory: Path) -> str:
    """Return the last few lines of the log as one line that people, SQLite and protobuf can take.

    Blocks on the disk.
    """
    text = read_console(directory, _WORDS_READ).decode("utf-8", "replace")
    lines = [" ".join(_plain(line).split()) for line in text.splitlines()]
    return " | ".join([line for line in lines if line][-_LINES:])[-_WORDS:]


def _plain(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)


def _open_all(directory: Path, stack: contextlib.ExitStack) -> list[tuple[int, int]]:
    """Return handle and size of each file of the log, oldest first."""
    found: list[tuple[int, int, int]] = []
    try:
        with os.scandir(directory) as entries:
            some = [directory / entry.name for entry in islice(entries, _MAX_ENTRIES)]
    except FileNotFoundError:
        return []
    paths = sorted(path for path in some if not path.name.startswith("."))
    for path in paths[:_MAX_FILES]:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a link, or gone already
            continue
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode):
            found.append((status.st_mtime_ns, handle, status.st_size))
    return [(handle, size) for _, handle, size in sorted(found)]
