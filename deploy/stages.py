"""Build stages: each result is kept in a folder named by a hash of what it was built from."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.steps import step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_SKIP = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def digest(paths: Iterable[Path], *words: str) -> str:
    """Return a hash of `words`, and of the names, modes and contents of files, folders in depth."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        for file in sorted(_files(path)):
            name = f"{path.name}/{file.relative_to(path)}"
            total.update(f"\0{name}\0{file.stat().st_mode & 0o111:o}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def stamp(paths: Iterable[Path]) -> str:
    """Return a hash of names, sizes and times: for artifacts too large to read each time."""
    seen = [
        (str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for path in paths
        for file in sorted(_files(path))
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def stage(cache: Path, name: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the folder that `build` filled for `key`; it is called only if there is none yet.

    The result appears whole or not at all. Results for other keys are removed.
    """
    final = cache / f"{name}-{key}"
    with _lock(cache / f".{name}.lock"), step(f"Build {name}") as notes:
        if final.is_dir():
            notes.append("as it was")
            return final
        fresh = cache / f".{name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        build(fresh)
        for old in cache.glob(f"{name}-*"):
            shutil.rmtree(old)
        fresh.rename(final)
    return final


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for entry in path.iterdir():
        if entry.name not in _SKIP and not entry.is_symlink():
            yield from _files(entry)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
