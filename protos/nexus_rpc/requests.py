"""Repeats of a mutating call: what `request_id` was used for, and how far it got.

The functions run inside a write of `nexus_rpc.database`, so a claim is durable together with the
first change that the call makes, and its end together with the last.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nexus_rpc.errors import AlreadyExists, invalid_field

if TYPE_CHECKING:
    import sqlite3

    from google.protobuf.message import Message

SCHEMA = """
CREATE TABLE requests (
  id TEXT PRIMARY KEY,
  method TEXT NOT NULL,
  digest BLOB NOT NULL,
  subject TEXT NOT NULL,
  done INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX requests_by_age ON requests (created)
"""

_KEPT_SECONDS = 24 * 3600
_MAX_LENGTH = 64


@dataclass(frozen=True)
class Claim:
    """What is known of a request id: first use, begun before and not ended, or done.

    `subject` is what the first use was about, such as the id of the VM it made.
    """

    state: Literal["new", "pending", "done"]
    subject: str


def claim(
    connection: sqlite3.Connection, request_id: str, method: str, message: Message, subject: str
) -> Claim:
    """Take `request_id` for this call, or find what it was taken for.

    An empty id is always new and leaves no trace. Raises as `find` does.
    """
    if not request_id:
        return Claim("new", subject)
    now = time.time()
    connection.execute("DELETE FROM requests WHERE created < ?", (now - _KEPT_SECONDS,))
    found = find(connection, request_id, method, message)
    if found is not None:
        return found
    connection.execute(
        "INSERT INTO requests (id, method, digest, subject, created) VALUES (?, ?, ?, ?, ?)",
        (request_id, method, _digest(message), subject, now),
    )
    return Claim("new", subject)


def find(
    connection: sqlite3.Connection, request_id: str, method: str, message: Message
) -> Claim | None:
    """Return what `request_id` was taken for, without taking it; None if it is free.

    Raises AlreadyExists (REQUEST_ID_REUSED) when it was used for another method or body,
    InvalidArgument when it is too long.
    """
    if len(request_id) > _MAX_LENGTH or not request_id.isprintable():
        raise invalid_field("request_id", request_id, f"at most {_MAX_LENGTH} printable characters")
    row = connection.execute(
        "SELECT method, digest, subject, done FROM requests WHERE id = ?", (request_id,)
    ).fetchone()
    if row is None:
        return None
    if (row["method"], row["digest"]) != (method, _digest(message)):
        raise AlreadyExists(
            "REQUEST_ID_REUSED",
            f"request_id {request_id!r} was used for another request ({row['method']}); "
            "use a new one for each request",
            request_id=request_id,
        )
    return Claim("done" if row["done"] else "pending", row["subject"])


def finish(connection: sqlite3.Connection, request_id: str) -> None:
    """Record that the request was done: a repeat only reports."""
    connection.execute("UPDATE requests SET done = 1 WHERE id = ?", (request_id,))


def forget(connection: sqlite3.Connection, request_id: str) -> None:
    """Free the id, since the request failed and changed nothing."""
    connection.execute("DELETE FROM requests WHERE id = ?", (request_id,))


def _digest(message: Message) -> bytes:
    body = type(message)()
    body.CopyFrom(message)
    body.ClearField("request_id")
    return hashlib.sha256(body.SerializeToString(deterministic=True)).digest()
