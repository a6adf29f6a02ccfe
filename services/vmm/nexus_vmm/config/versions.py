"""The versions of the settings as rows of SQLite.

The functions run inside a transaction of the database thread. A version holds all values that were
set, so the newest alone says what holds. One that cannot be read any more is as if it had never
been: that before it holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from nexus_rpc import requests
from nexus_rpc.errors import FailedPrecondition, NotFound
from nexus_vmm.config import table as config
from nexus_vmm.records.damage import LATEST, UNREADABLE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from nexus_vmm.calls import Request

KEPT = 100
"""Versions that are kept."""


@dataclass(frozen=True)
class Change:
    """What a version changed: a setting's name, and its value before and after."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Version:
    """One version; `number` 0 is that of the defaults. `time` in microseconds since the epoch.

    `values` are those that were set. `back_to` is the version that it brought back, or None.
    """

    number: int = 0
    time: int = 0
    values: tuple[tuple[str, str], ...] = ()
    changes: tuple[Change, ...] = ()
    back_to: int | None = None


def newest(db: sqlite3.Connection) -> Version:
    """Return the version that holds."""
    return next(filter(None, map(_version, _rows(db))), Version())


def current(db: sqlite3.Connection) -> config.Config:
    """Return the settings that hold."""
    return config.read(dict(newest(db).values))


def every(db: sqlite3.Connection) -> list[Version]:
    """Return the versions that are kept, the newest first."""
    return [version for version in map(_version, _rows(db)) if version]


def damaged(db: sqlite3.Connection) -> list[int]:
    """Return the numbers of the versions that cannot be read."""
    return [row["version"] for row in _rows(db) if _version(row) is None]


def update(
    db: sqlite3.Connection, request: Request, values: Mapping[str, str], expected: int, now: int
) -> tuple[Version, bool]:
    """Give settings other values (see UpdateSettings); "" takes the default again.

    `values` are as `config.check` returns them. Returns the version that holds, and whether it is
    new. Raises FailedPrecondition (VERSION_MISMATCH).
    """
    if _is_done(db, request):
        return newest(db), False
    version = newest(db)
    if expected not in (0, version.number):
        raise FailedPrecondition(
            "VERSION_MISMATCH",
            f"the settings have changed: their version is {version.number}, not {expected}; "
            "read them again",
            version=str(version.number),
        )
    before = dict(version.values)
    # What this release does not allow does not hold; were it kept, no rollback could reach it.
    forgotten = config.unfit(before)
    kept = {name: value for name, value in before.items() if name not in forgotten}
    merged = {**kept, **values}
    return _put(db, version, {name: value for name, value in merged.items() if value}, now)


def roll_back(
    db: sqlite3.Connection, request: Request, number: int, now: int
) -> tuple[Version, bool]:
    """Bring the values of version `number` back, 0 for the defaults (see RollbackSettings).

    Returns as `update` does. Raises NotFound (VERSION_NOT_FOUND), FailedPrecondition
    (VERSION_UNFIT).
    """
    if _is_done(db, request):
        return newest(db), False
    values = dict(_find(db, number).values)
    bad = config.unfit(values)
    if bad:
        raise FailedPrecondition(
            "VERSION_UNFIT",
            f"version {number} has values that this release does not allow: {', '.join(bad)}; "
            "set what you want of it by UpdateSettings",
            version=str(number),
        )
    return _put(db, newest(db), values, now, back_to=number)


def _is_done(db: sqlite3.Connection, request: Request) -> bool:
    claim = requests.claim(db, request.id, request.method, request.body, "settings")
    requests.finish(db, request.id)
    return claim.state == "done"


def _find(db: sqlite3.Connection, number: int) -> Version:
    if number == 0:
        return Version()
    row = db.execute("SELECT * FROM setting_versions WHERE version = ?", (number,)).fetchone()
    version = _version(row) if row else None
    if version is None:
        kept = db.execute("SELECT min(version), max(version) FROM setting_versions").fetchone()
        there = "there is none yet" if kept[0] is None else f"{kept[0]} to {kept[1]} are kept"
        raise NotFound(
            "VERSION_NOT_FOUND",
            f"there is no version {number} of the settings: {there}",
            version=str(number),
        )
    return version


def _put(
    db: sqlite3.Connection,
    before: Version,
    values: Mapping[str, str],
    now: int,
    *,
    back_to: int | None = None,
) -> tuple[Version, bool]:
    """Make `values` the newest version, unless they come to what holds already."""
    changes = _changes(config.told(dict(before.values)), config.told(values))
    if not changes:
        return before, False
    body = {
        "values": values,
        "changes": [[change.name, change.old, change.new] for change in changes],
        "back_to": back_to,
    }
    number = db.execute(
        "INSERT INTO setting_versions (time, body) VALUES (?, ?)", (now, json.dumps(body))
    ).lastrowid
    db.execute(
        "DELETE FROM setting_versions WHERE version <="
        " (SELECT version FROM setting_versions ORDER BY version DESC LIMIT 1 OFFSET ?)",
        (KEPT,),
    )
    return Version(number or 0, now, tuple(values.items()), changes, back_to), True


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    return tuple(
        Change(name, old, after[name]) for name, old in before.items() if old != after[name]
    )


def _rows(db: sqlite3.Connection) -> sqlite3.Cursor:
    return db.execute("SELECT * FROM setting_versions ORDER BY version DESC")


def _version(row: sqlite3.Row) -> Version | None:
    """Return the version of a row, or None where it cannot be read."""
    try:
        body = json.loads(row["body"])
        values = tuple(body["values"].items())
        changes = tuple(Change(name, old, new) for name, old, new in body["changes"])
        back_to = body["back_to"]
    except UNREADABLE:
        return None
    texts = chain(*values, *((change.name, change.old, change.new) for change in changes))
    is_back = type(back_to) is int and back_to >= 0
    whole = all(isinstance(text, str) for text in texts) and (is_back or back_to is None)
    if not whole or not 0 <= row["time"] <= LATEST:
        return None
    return Version(row["version"], row["time"], values, changes, back_to)
