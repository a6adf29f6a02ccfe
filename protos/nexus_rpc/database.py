"""A service's SQLite: WAL, one writer, migrations that only go forward.

All work runs on one thread of its own, so the event loop never waits for the disk, and reads see
each write that was awaited before them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from nexus_rpc.errors import ResourceExhausted
from nexus_rpc.reserve import Reserve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_T = TypeVar("_T")


class DatabaseError(Exception):
    """The database cannot be opened. The message names the file and the way out."""


class Database:
    """One SQLite file and the thread that works on it. Use `Database.open`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        reserve: Reserve,
        errors: str,
    ) -> None:
        self._connection = connection
        self._errors = errors
        self._thread = thread
        self._reserve = reserve

    @classmethod
    async def open(
        cls, path: Path, migrations: Sequence[str], reserve: int = 0, *, errors: str = "strict"
    ) -> Database:
        """Open the file at `path`, creating it if needed, and bring its schema up to date.

        `migrations` are scripts; number N brings version N to N + 1. The list only ever grows.
        A database of a newer version, or a damaged one, is left as it is: DatabaseError.
        `reserve` bytes of the disk are kept back, for opening it and for urgent writes.
        `errors` says what becomes of a text that is damaged so that it is no UTF-8 (codecs, "Error
        Handlers"): to read it fails, unless something else is asked for. Then work that met one is
        done again.
        """
        kept = Reserve(path.with_suffix(".reserve"), reserve)
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _open, path, migrations, kept)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(connection, thread, kept, errors)

    async def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` on the database thread; it must not write."""
        return await self._run(_transact, work, "BEGIN")

    async def write(self, work: Callable[[sqlite3.Connection], _T], *, urgent: bool = False) -> _T:
        """Run `work` in one transaction: all of it is durable on return, or none of it happened.

        Once begun it is finished even if the caller is cancelled, so the caller's view and the
        file never part half-way. Raises ResourceExhausted (DISK_FULL, DISK_UNWRITABLE). What is
        `urgent`, as it will make room, may use what is kept back of a full disk.
        """
        if not urgent:
            return await self._run(_transact, work, "BEGIN IMMEDIATE")
        return await self._run(_transact_at_last, work, self._reserve)

    async def close(self) -> None:
        """Finish what is under way and close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown(wait=True)

    async def _run(self, transact: Callable[..., _T], *given: object) -> _T:
        loop = asyncio.get_running_loop()
        run = partial(_reading_on, self._errors, transact, self._connection, *given)
        return await loop.run_in_executor(self._thread, run)


def _reading_on(
    errors: str, transact: Callable[..., _T], connection: sqlite3.Connection, *given: object
) -> _T:
    """Transact, over texts that are no UTF-8 too unless `errors` is "strict"."""
    try:
        return transact(connection, *given)
    except sqlite3.OperationalError as error:
        first = connection.text_factory is str
        if errors == "strict" or not first or "decode to UTF-8" not in str(error):
            raise
    # Not before, as it makes reading slower by a third.
    connection.text_factory = partial(str, encoding="utf-8", errors=errors)
    return transact(connection, *given)


def _transact_at_last(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T], reserve: Reserve
) -> _T:
    try:
        result = _transact(connection, work, "BEGIN IMMEDIATE")
    except ResourceExhausted as error:
        if error.reason != "DISK_FULL" or not reserve.drop():
            raise
        result = _transact(connection, work, "BEGIN IMMEDIATE")
    reserve.fill()
    return result


def _transact(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], _T], begin: str
) -> _T:
    try:
        connection.execute(begin)
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException as error:
        # A full disk ends the transaction by itself; a COMMIT that fails need not end it.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        refusal = _of_the_disk(connection, error)
        if refusal:
            raise refusal from error
        raise
    return result


def _of_the_disk(connection: sqlite3.Connection, error: BaseException) -> ResourceExhausted | None:
    """Return what to say of an error that is the disk's."""
    # Python's own errors of the module have no code; the low byte is the kind of error.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        return None
    path = next(row["file"] for row in connection.execute("PRAGMA database_list"))
    if code == sqlite3.SQLITE_FULL:
        why = f"no room on the host to write {path}; make room there"
        return ResourceExhausted("DISK_FULL", why)
    return ResourceExhausted(
        "DISK_UNWRITABLE",
        f"{path} cannot be written ({error}): its disk is read-only or broken; mend that, and "
        "restart the service if it was started meanwhile",
    )


def _open(path: Path, migrations: Sequence[str], reserve: Reserve) -> sqlite3.Connection:
    reserve.drop()
    connection = _connect(path, migrations)
    reserve.fill()
    return connection


def _connect(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    # Only the database thread uses it, but close() may come from whichever thread that is.
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from error
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: an answered call survives a power loss, not only a crash of the process.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _check(connection)
        _migrate(connection, path, migrations)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _unusable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Look at every page: a damaged one may read as rows that were never there, or are no more."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _unusable(path: Path, error: sqlite3.DatabaseError) -> DatabaseError:
    if isinstance(error, sqlite3.OperationalError):
        way_out = "the file itself may be whole: look at the disk's room and at who may write there"
    else:
        way_out = "put back a copy of it, as recovery.md says; without it, all it knew is forgotten"
    return DatabaseError(f"{path} cannot be used ({error}); {way_out}")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise DatabaseError(
            f"{path} has version {version}, this program knows {len(migrations)}: "
            "it was written by a newer Nexus; install that one"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script};\nPRAGMA user_version = {number};\nCOMMIT;"
        )
