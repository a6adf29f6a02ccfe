"""Reading the serial console of a VM out of the pieces of its log."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from nexus_vmm.console.pieces import pieces, read_piece

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nexus_vmm.console.pieces import Piece

LIMIT = 1024 * 1024
"""Bytes of the log that are kept (see GetConsoleLog)."""

_LINES = 5
_WORDS = 400
_WORDS_READ = 4096
_LOOKS = 3


class Printed(NamedTuple):
    """What was printed. `lost` is how many bytes before it cannot be read any more; 1 where some
    may be lost and their number cannot be known."""

    data: bytes
    lost: int


class Reader:
    """Reads on through the log, piece by piece, over boots of the VM. Blocks on the disk.

    Pieces are known by their inode, as they are renamed and written anew. Only the newest one
    grows. One that it was at, and that has changed after others, was emptied: the writer went all
    the way round since the last look.
    """

    def __init__(self, directory: Path, since: int = 0) -> None:
        """`since`, in nanoseconds since the epoch: what was last changed before is passed over."""
        self._directory = directory
        self._since = since
        self._seen: dict[int, tuple[int, int]] = {}
        self._newest = 0
        self._offset = 0

    def more(self) -> Printed:
        """Return what was printed since the last call, the last `LIMIT` bytes of it at most.

        Raises FileNotFoundError once the log was removed, and OSError.
        """
        data = bytearray()
        lost = 0
        for _ in range(_LOOKS):  # pieces may be put aside between a look and a reading
            parts, missing = self._look()
            lost += missing
            for number, (piece, start) in enumerate(parts):
                text = read_piece(piece, start, growing=number == len(parts) - 1)
                if text is None:
                    break
                data += text
                self._pass(piece)
            else:
                break
        return Printed(bytes(data[-LIMIT:]), lost + max(0, len(data) - LIMIT))

    def _look(self) -> tuple[Sequence[tuple[Piece, int]], int]:
        """Return the pieces with news and where these begin in them, and how much was missed."""
        found = pieces(self._directory)
        present = {piece.inode for piece in found}
        lost = 0
        if self._offset and self._newest not in present:
            lost += self._lose()
        self._seen = {inode: seen for inode, seen in self._seen.items() if inode in present}
        parts: list[tuple[Piece, int]] = []
        for piece in found:
            if self._seen.get(piece.inode) == (piece.changed, piece.size):
                continue
            if piece.changed < self._since:
                self._pass(piece)
                continue
            start = 0
            if piece.inode == self._newest:
                if not parts and piece.size >= self._offset:
                    start = self._offset
                else:
                    lost += self._lose()
            parts.append((piece, start))
        return _last_of(parts, lost)

    def _lose(self) -> int:
        """Give up the place in the log; how much was printed after it cannot be known."""
        self._newest = self._offset = 0
        return 1

    def _pass(self, piece: Piece) -> None:
        self._seen[piece.inode] = (piece.changed, piece.size)
        self._newest, self._offset = piece.inode, piece.size


def read_console(
    directory: Path, tail_bytes: int = 0, tail_lines: int = 0, since: int = 0
) -> bytes:
    """Return the log, or its end: `tail_bytes`, `tail_lines`, whichever is less; 0 is no bound.

    `since` is as for `Reader`. Blocks on the disk.
    """
    with suppress(FileNotFoundError):
        return tail(Reader(directory, since).more().data, tail_bytes, tail_lines)
    return b""


def tail(log: bytes, tail_bytes: int, tail_lines: int) -> bytes:
    """Return the end of `log`, as `read_console` does."""
    start = max(0, len(log) - tail_bytes) if tail_bytes else 0
    if not tail_lines:
        return log[start:]
    end = len(log) - log.endswith(b"\n")
    for _ in range(tail_lines):
        end = log.rfind(b"\n", start, end)
        if end < 0:
            return log[start:]
    return log[end + 1 :]


def last_words(directory: Path) -> str:
    """Return the last few lines of the log as one line that people, SQLite and protobuf can take.

    Blocks on the disk.
    """
    text = read_console(directory, _WORDS_READ).decode("utf-8", "replace")
    lines = [" ".join(_plain(line).split()) for line in text.splitlines()]
    return " | ".join([line for line in lines if line][-_LINES:])[-_WORDS:]


def _plain(line: str) -> str:
    return "".join(char if char.isprintable() else " " for char in line)


def _last_of(parts: list[tuple[Piece, int]], lost: int) -> tuple[list[tuple[Piece, int]], int]:
    """Return `parts` without what is further than `LIMIT` from the end, which counts as `lost`."""
    room = LIMIT
    bounded = []
    for piece, start in reversed(parts):
        within = max(start, piece.size - room)
        room -= piece.size - within
        lost += within - start
        bounded.append((piece, within))
    return bounded[::-1], lost
