"""Room on a disk that is kept back: what frees some can be written even when it is full."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Reserve:
    """A file of `size` bytes at `path`, whose only worth is that it can be removed.

    The methods block on the disk. Where there is no room for it, there is none: no error.
    """

    path: Path
    size: int

    def fill(self) -> None:
        """Make the file, if it is not there and there is room."""
        if not self.size or self.path.exists():
            return
        half = self.path.with_suffix(".half")
        try:
            handle = os.open(half, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self.size)
            finally:
                os.close(handle)
            half.rename(self.path)
        except OSError:
            with suppress(OSError):
                half.unlink(missing_ok=True)

    def drop(self) -> bool:
        """Remove the file; return whether that made room."""
        if not self.size:
            return False
        try:
            self.path.unlink()
        except OSError:
            return False
        return True
