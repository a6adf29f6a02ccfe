"""A log writer that goes round its files as rotatelogs does, with a clock of its own."""

import os
from pathlib import Path


class Ring:
    """Writes pieces of `limit` bytes into `directory`; each change is one second after the last.

    `tick` is the resolution of its clock, in nanoseconds.

    As rotatelogs 2.4 does: it looks at the size before it writes what it has read, empties the file
    that it comes to, and begins at `log` when it is started, at its end if it is there.
    """

    def __init__(self, directory: Path, limit: int = 64 * 1024, files: int = 5) -> None:
        self.directory = directory
        self.limit = limit
        self.files = files
        self.now = 1_000_000_000
        self.tick = 1
        self.start()

    def start(self):
        """Begin as a new writer does."""
        self._number = 0

    @property
    def path(self):
        """The file that it is at."""
        return self.directory / (f"log.{self._number}" if self._number else "log")

    def print(self, text: bytes) -> None:
        """Write what one read from the pipe brought."""
        if self.path.exists() and self.path.stat().st_size >= self.limit:
            self._number = (self._number + 1) % self.files
            self.path.write_bytes(b"")
        with self.path.open("ab") as file:
            file.write(text)
        self.now += 1_000_000_000
        told = self.now // self.tick * self.tick
        os.utime(self.path, ns=(told, told))
