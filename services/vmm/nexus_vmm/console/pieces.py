"""The files that hold a VM's console log, its pieces.

The log writer of the VM's unit (rotatelogs, see `deploy/bin/nexus-vm-launch`) goes round `log`,
`log.1` to `log.4`, each about 64 KiB, and empties a file before it writes there again. Before each
boot vmm puts them aside as `old.1`, `old.2` and so on, which keeps the time of their last change:
so no piece holds what two boots printed, and its time is that of its newest byte.

The writer parses what a hostile guest prints: nothing but regular files is opened, no link is
followed, and what there may be of anything is bounded.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_OLD_BYTES = 384 * 1024
"""What is kept of earlier boots. With the writer's five files, each at the very most 128 KiB (its
64 KiB and one of its buffers), that is at most 1 MiB."""
_OLD_PIECES = 32
_MAX_PIECES = 64
_LOOKS = 10
_MAX_ENTRIES = 1024

_OLD = re.compile(r"old\.([0-9]{1,18})")
_RING = re.compile(r"log(?:\.([0-9]{1,3}))?")


@dataclass(frozen=True)
class Piece:
    """One file of the log as it was found; `changed` is in nanoseconds since the epoch."""

    path: Path
    inode: int
    size: int
    changed: int

    @property
    def number(self) -> int:
        """The place among the pieces of earlier boots, from 1; 0 of any other."""
        match = _OLD.fullmatch(self.path.name)
        return int(match[1]) if match else 0

    @property
    def turn(self) -> int:
        """The place among those that the writer goes round, from 1; 0 of any other."""
        match = _RING.fullmatch(self.path.name)
        return int(match[1] or 0) + 1 if match else 0


def pieces(directory: Path) -> list[Piece]:
    """Return the pieces, oldest first. Raises OSError, FileNotFoundError where there is no log."""
    names = _names(directory)
    for _ in range(_LOOKS):
        found = _found(directory, names)
        # Putting aside brings names that were not there before: then a piece may be missing here.
        before, names = names, _names(directory)
        if names == before:
            break
    old = [piece for piece in found if not piece.turn]
    ring = [piece for piece in found if piece.turn]
    return [*sorted(old, key=_age), *_in_turn(sorted(ring, key=lambda piece: piece.turn))]


def read_piece(piece: Piece, start: int, *, growing: bool) -> bytes | None:
    """Return the bytes of a piece from `start` to its size as it was found.

    None where the file is not there any more under its name, or was emptied meanwhile; one that is
    `growing` may have become longer.
    """
    try:
        handle = os.open(piece.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if status.st_ino != piece.inode or not stat.S_ISREG(status.st_mode):
            return None
        data = os.pread(handle, piece.size - start, start)
        now = os.fstat(handle)
    finally:
        os.close(handle)
    whole = now.st_size >= piece.size if growing else now.st_mtime_ns == piece.changed
    return data if whole else None


def put_aside(directory: Path) -> None:
    """Make room for a boot: what the last ones printed goes aside, and the oldest of it away.

    May be killed anywhere and done again. No writer may be at work. Raises OSError.
    """
    try:
        found = pieces(directory)
    except FileNotFoundError:
        return
    number = max((piece.number for piece in found), default=0)
    room = _OLD_BYTES
    kept: list[Piece] = []
    for piece in reversed(found):
        room -= piece.size
        if piece.size and room >= 0 and len(kept) < _OLD_PIECES:
            kept.append(piece)
        else:
            piece.path.unlink()
    for piece in reversed(kept):
        if not piece.number:
            number += 1
            piece.path.rename(directory / f"old.{number}")


def _names(directory: Path) -> list[str]:
    with os.scandir(directory) as entries:
        some = [entry.name for entry in islice(entries, _MAX_ENTRIES) if entry.name[0] != "."]
    return sorted(some)[:_MAX_PIECES]


def _found(directory: Path, names: Iterable[str]) -> list[Piece]:
    found = []
    for path in map(directory.joinpath, names):
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                found.append(Piece(path, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _age(piece: Piece) -> tuple[bool, int]:
    """Put pieces with a number first: what has none, an earlier release left beside its ring."""
    return not piece.number, piece.number or piece.changed


def _in_turn(ring: list[Piece]) -> list[Piece]:
    """Return the writer's pieces, given by name, oldest first.

    Several may have been changed within one tick of the clock, so their turn counts, and their time
    only says where it begins. A clock that was set back meanwhile leaves no such place.
    """
    for start in range(len(ring)):
        turned = ring[start:] + ring[:start]
        if all(one.changed <= other.changed for one, other in pairwise(turned)):
            return turned
    return sorted(ring, key=lambda piece: piece.changed)
