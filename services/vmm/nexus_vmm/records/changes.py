"""The log of changes: which VM has which revision. Inside a transaction of the database thread.

A revision is taken in the very transaction that makes the change, so neither is ever there without
the other. Of each VM only the last revision is kept, as what is told of it is always its present.

A copy of the database that is put back knows less than vmm has told. So each life of vmm begins its
revisions at a random distance from all that are known, and that gap is kept: who remembers one from
within it, or from beyond all, remembers what this database never told. The same goes for a database
that was lost; the revisions of the next begin at the time when it was made, in ms since the epoch.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

SCHEMA = """
CREATE TABLE changes (
  revision INTEGER PRIMARY KEY AUTOINCREMENT,
  vm TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO sqlite_sequence (name, seq)
  VALUES ('changes', CAST(strftime('%s', 'now') AS INTEGER) * 1000);
INSERT INTO facts (key, value)
  SELECT 'forgotten', CAST(seq AS TEXT) FROM sqlite_sequence WHERE name = 'changes';
INSERT INTO changes (vm) SELECT id FROM vms ORDER BY seq
"""

GAPS = """
CREATE TABLE gaps (
  before INTEGER PRIMARY KEY,
  after INTEGER NOT NULL
) STRICT
"""

KEPT = 10_000
"""Entries of the log that are kept at least."""
_EACH = 1_000
"""After so many revisions the log is cut, so that a change does not pay for it."""
LIVES = 100
"""Gaps that are kept."""
_STEP = 1 << 32
"""The least distance: more changes than are made while a copy of the database is of use."""


@dataclass(frozen=True)
class Gone:
    """A VM that was deleted, and the revision of that."""

    id: str
    change: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Log:
    """What the log knows: the last revision, the last one that may be forgotten, the deletions.

    Of the revisions between the two of a gap there were none.
    """

    last: int
    forgotten: int
    gone: tuple[Gone, ...]
    gaps: tuple[tuple[int, int], ...] = ()


def begin(db: sqlite3.Connection) -> None:
    """Begin the revisions of another life of vmm."""
    last = _last(db)
    first = last + _STEP + secrets.randbits(32)
    db.execute("INSERT INTO gaps (after, before) VALUES (?, ?)", (last, first))
    db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'changes'", (first,))
    _cut(db)


def record(db: sqlite3.Connection, vm_id: str) -> int:
    """Note that a VM was made, changed or deleted; return the revision of that."""
    revision = db.execute("INSERT OR REPLACE INTO changes (vm) VALUES (?)", (vm_id,)).lastrowid or 0
    if revision % _EACH == 0:
        _cut(db)
    return revision


def read(db: sqlite3.Connection) -> Log:
    """Return what the log knows."""
    gone = db.execute(
        "SELECT vm, revision FROM changes WHERE vm NOT IN (SELECT id FROM vms) ORDER BY revision"
    )
    gaps = db.execute("SELECT after, before FROM gaps")
    return Log(
        _last(db),
        _forgotten(db),
        tuple(Gone(vm_id, revision) for vm_id, revision in gone),
        tuple((after, before) for after, before in gaps),
    )


def _last(db: sqlite3.Connection) -> int:
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return int(found[0])


def _forgotten(db: sqlite3.Connection) -> int:
    """Return the last revision that may be forgotten; the last of all where that is damaged."""
    found = db.execute("SELECT value FROM facts WHERE key = 'forgotten'").fetchone()
    known, last = found[0] if found else "", _last(db)
    return min(int(known), last) if known.isdecimal() else last


def _cut(db: sqlite3.Connection) -> None:
    """Forget all but the last entries, and all but the last gaps."""
    forgotten = _forgotten(db)
    for table, key, kept in (("changes", "revision", KEPT), ("gaps", "before", LIVES)):
        oldest = f"SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT 1 OFFSET ?"  # noqa: S608
        found = db.execute(oldest, (kept,)).fetchone()
        if found is not None:
            db.execute(f"DELETE FROM {table} WHERE {key} <= ?", tuple(found))  # noqa: S608
            forgotten = max(forgotten, found[0])
    db.execute("UPDATE facts SET value = ? WHERE key = 'forgotten'", (str(forgotten),))
