"""Links in the store: ways from one VM to another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus_netd.model import Link, Protocol
from nexus_netd.records.policies import Write

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from nexus_netd.view import View
    from nexus_rpc.database import Database


class Links:
    """The links of all VMs; `view` follows. A port that is given up takes its links with it."""

    def __init__(self, database: Database, view: View) -> None:
        self._database = database
        self._view = view

    def put(self, link: Link) -> Write:
        """Make a link."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO links (source, target, protocol, ports) VALUES (?, ?, ?, ?)",
                _values(link),
            )

        return Write(sql, lambda: self._view.put_link(link))

    def remove(self, link: Link) -> Write:
        """Take a link away."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM links WHERE source = ? AND target = ? AND protocol = ? AND ports = ?",
                _values(link),
            )

        return Write(sql, lambda: self._view.remove_link(link))

    async def page(self, after: int, size: int, vm_id: str) -> Sequence[tuple[int, Link]]:
        """Return up to `size` links with numbers above `after`, oldest first, those numbers too."""

        def work(connection: sqlite3.Connection) -> list[tuple[int, Link]]:
            rows = connection.execute(
                "SELECT * FROM links WHERE number > :after"
                " AND (:vm = '' OR :vm IN (source, target)) ORDER BY number LIMIT :size",
                {"after": after, "vm": vm_id, "size": size},
            )
            return [(row["number"], _link(row)) for row in rows]

        return await self._database.read(work)


def load(connection: sqlite3.Connection) -> list[Link]:
    """Return all links, oldest first."""
    return [_link(row) for row in connection.execute("SELECT * FROM links ORDER BY number")]


def _values(link: Link) -> tuple[str, str, int, str]:
    return (link.from_vm_id, link.to_vm_id, int(link.protocol), json.dumps(link.ports))


def _link(row: sqlite3.Row) -> Link:
    return Link(
        row["source"], row["target"], Protocol(row["protocol"]), tuple(json.loads(row["ports"]))
    )
