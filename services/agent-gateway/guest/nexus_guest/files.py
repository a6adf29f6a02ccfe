"""Files of the guest: read, replaced atomically, deleted. Failures are GuestError."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from nexus_guest.errors import GuestError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


class Reader:
    """A file opened for reading; `size` and `mode` are those at that moment."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            # O_NONBLOCK: a named pipe without a writer must not hold us.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise from_os_error(error, path) from None
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise _not_a_file(path, status.st_mode)
        self.size = status.st_size
        self.mode = stat.S_IMODE(status.st_mode)
        # Files of /proc say 0 and have content; a file that grows ends where it ended when opened.
        self._left = self.size or None

    def read(self, most: int) -> bytes:
        """Return the next bytes, at most `most`; empty at the end."""
        try:
            data = os.read(self._fd, most if self._left is None else min(most, self._left))
        except OSError as error:
            raise from_os_error(error, self._path) from None
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class Writer:
    """Writes beside the target and renames at `commit`. `close` drops what was not committed.

    The target keeps its owner, and its mode unless one is given; a symbolic link is followed.
    Parents are made at `commit`: the new file waits in the nearest directory that exists.
    """

    def __init__(self, path: str, mode: int | None, *, parents: bool) -> None:
        self._path = path
        self._target = os.path.realpath(path)
        self._temporary: str | None = None
        self.size = 0
        with _errors_of(path):
            old = self._old()
            directory = _nearest(os.path.dirname(self._target), climb=parents)
            name = f"{directory}/.nexus-{os.urandom(8).hex()}"
            self._fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._temporary = name
        try:
            with _errors_of(path):
                if old is not None:
                    os.fchown(self._fd, old.st_uid, old.st_gid)
                if mode is None:
                    mode = 0o644 if old is None else stat.S_IMODE(old.st_mode)
                os.fchmod(self._fd, mode)
        except GuestError:
            self.close()
            raise

    def _old(self) -> os.stat_result | None:
        try:
            old = os.stat(self._target)
        except FileNotFoundError:
            if self._path.endswith("/"):
                raise GuestError("NOT_A_FILE", f"{self._path}: names a directory") from None
            return None
        if not stat.S_ISREG(old.st_mode):
            raise _not_a_file(self._path, old.st_mode)
        return old

    def write(self, data: bytes) -> None:
        """Append `data`."""
        view = memoryview(data)
        with _errors_of(self._path):
            while view:
                view = view[os.write(self._fd, view) :]
        self.size += len(data)

    def commit(self) -> None:
        """Put the file in its place, durably."""
        assert self._temporary is not None  # noqa: S101 - commit is called once
        directory = os.path.dirname(self._target)
        with _errors_of(self._path):
            os.fsync(self._fd)
            made = _make(directory)
            try:
                os.rename(self._temporary, self._target)
            except OSError:
                for parent in reversed(made):
                    with contextlib.suppress(OSError):
                        os.rmdir(parent)
                raise
            self._temporary = None
            _sync(directory)

    def close(self) -> None:
        """Close the file, and drop it unless it was committed."""
        os.close(self._fd)
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary)


def delete(path: str) -> None:
    """Delete a file or a symbolic link."""
    with _errors_of(path):
        mode = os.lstat(path).st_mode
        if stat.S_IFMT(mode) in (stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK):
            raise _not_a_file(path, mode)
        os.unlink(path)
        _sync(os.path.dirname(path))


@contextlib.contextmanager
def _errors_of(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path) from None


def _not_a_file(path: str, mode: int) -> GuestError:
    return GuestError("NOT_A_FILE", f"{path}: is {_KINDS.get(stat.S_IFMT(mode), 'no file')}")


def _nearest(directory: str, *, climb: bool) -> str:
    """Return the nearest directory that exists; without `climb` it must be `directory`."""
    while True:
        try:
            mode = os.stat(directory).st_mode
        except FileNotFoundError:
            if not climb:
                raise
            directory = os.path.dirname(directory)
            continue
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{directory} is no directory")
        return directory


def _make(directory: str) -> list[str]:
    """Make `directory` and its parents; return those that were not there, outermost first."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    missing.reverse()
    for parent in missing:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent)
    return missing


def _sync(directory: str) -> None:
    fd = os.open(directory or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
