"""Publications in the store: ports of the host that are forwarded to VMs."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from nexus_netd.model import Protocol, Publication
from nexus_netd.records.policies import Write

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from nexus_netd.view import View
    from nexus_rpc.database import Database


class Publications:
    """The publications of all VMs; `view` follows. A port that is given up takes its own along."""

    def __init__(self, database: Database, view: View) -> None:
        self._database = database
        self._view = view

    def put(self, publication: Publication) -> Write:
        """Make a publication."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO publications (vm_id, host_ip, host_port, guest_port, protocol)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    publication.vm_id,
                    str(publication.host_ip),
                    publication.host_port,
                    publication.guest_port,
                    int(publication.protocol),
                ),
            )

        return Write(sql, lambda: self._view.put_publication(publication))

    def remove(self, publication: Publication) -> Write:
        """Take a publication away."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM publications WHERE protocol = ? AND host_port = ? AND host_ip = ?",
                (int(publication.protocol), publication.host_port, str(publication.host_ip)),
            )

        return Write(sql, lambda: self._view.remove_publication(publication))

    async def page(self, after: int, size: int, vm_id: str) -> Sequence[tuple[int, Publication]]:
        """Return up to `size` publications with numbers above `after`, oldest first, with those."""

        def work(connection: sqlite3.Connection) -> list[tuple[int, Publication]]:
            rows = connection.execute(
                "SELECT * FROM publications WHERE number > :after"
                " AND :vm IN ('', vm_id) ORDER BY number LIMIT :size",
                {"after": after, "vm": vm_id, "size": size},
            )
            return [(row["number"], _publication(row)) for row in rows]

        return await self._database.read(work)


def load(connection: sqlite3.Connection) -> list[Publication]:
    """Return all publications, oldest first."""
    rows = connection.execute("SELECT * FROM publications ORDER BY number")
    return [_publication(row) for row in rows]


def _publication(row: sqlite3.Row) -> Publication:
    return Publication(
        row["vm_id"],
        ip_address(row["host_ip"]),
        row["host_port"],
        row["guest_port"],
        Protocol(row["protocol"]),
    )
