"""The log of changes: which VM has which revision. Inside a transaction of the database thread.

A revision is taken in the very transaction that makes the change, so neither is ever there without
the other. Of each VM only the last revision is kept, as what is told of it is always its present.
Revisions begin at the time when the database was made, in ms since the epoch: whoever remembers one
of a database that was lost remembers one that is too low, and is told so.
"""

from __future__ import annotations

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

KEPT = 10_000
"""Entries of the log that are kept at least."""
_EACH = 1_000
"""After so many revisions the log is cut, so that a change does not pay for it."""


@dataclass(frozen=True)
class Gone:
    """A VM that was deleted, and the revision of that."""

    id: str
    change: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Log:
    """What the log knows: the last revision, the last one that may be forgotten, the deletions."""

    last: int
    forgotten: int
    gone: tuple[Gone, ...]


def record(db: sqlite3.Connection, vm_id: str) -> int:
    """Note that a VM was made, changed or deleted; return the revision of that."""
    revision = db.execute("INSERT OR REPLACE INTO changes (vm) VALUES (?)", (vm_id,)).lastrowid or 0
    if revision % _EACH == 0:
        _cut(db)
    return revision


def read(db: sqlite3.Connection) -> Log:
    """Return what the log knows."""
    (last,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    (forgotten,) = db.execute("SELECT value FROM facts WHERE key = 'forgotten'").fetchone()
    gone = db.execute(
        "SELECT vm, revision FROM changes WHERE vm NOT IN (SELECT id FROM vms) ORDER BY revision"
    )
    return Log(last, int(forgotten), tuple(Gone(vm_id, revision) for vm_id, revision in gone))


def _cut(db: sqlite3.Connection) -> None:
    """Forget all but the last entries."""
    found = db.execute(
        "SELECT revision FROM changes ORDER BY revision DESC LIMIT 1 OFFSET ?", (KEPT,)
    ).fetchone()
    if found is not None:
        db.execute("DELETE FROM changes WHERE revision <= ?", tuple(found))
        db.execute("UPDATE facts SET value = ? WHERE key = 'forgotten'", (str(found[0]),))
