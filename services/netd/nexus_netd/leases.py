"""Leases: which VM holds which address and TAP. The store is the truth; the kernel follows it.

An address is found without a search: first those that nobody ever had, then the one that has
been free for longest, so that a late packet seldom meets a new holder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.subnet import FIRST_GUEST
from nexus_rpc import requests
from nexus_rpc.errors import ResourceExhausted
from nexus_rpc.settings import SettingsError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from nexus_netd.subnet import Subnet
    from nexus_rpc.database import Database

MIGRATIONS = (
    f"""
CREATE TABLE leases (
  host INTEGER PRIMARY KEY,
  vm_id TEXT NOT NULL UNIQUE,
  tap TEXT NOT NULL UNIQUE,
  created REAL NOT NULL
);
CREATE TABLE freed (
  turn INTEGER PRIMARY KEY AUTOINCREMENT,
  host INTEGER NOT NULL UNIQUE
);
CREATE TABLE pool (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  subnet TEXT NOT NULL,
  next INTEGER NOT NULL
);
{requests.SCHEMA}
""",
)


@dataclass(frozen=True)
class Lease:
    """A VM's address, as its number in the subnet, and its TAP. `created` is in Unix seconds."""

    host: int
    vm_id: str
    tap: str
    created: float


class TapTaken(Exception):  # it is no error: the caller restores the other's TAP
    """The kernel gave a new TAP the name that another lease holds: that one's TAP is missing."""


class Leases:
    """The leases of one subnet. Use `Leases.open`."""

    def __init__(self, database: Database, subnet: Subnet, held: int) -> None:
        self._database = database
        self._subnet = subnet
        self.held = held
        """How many there are."""

    @classmethod
    async def open(cls, database: Database, subnet: Subnet) -> Leases:
        """Take up the leases in `database`.

        Raises SettingsError when they belong to another subnet: their VMs hold its addresses.
        """
        text = str(subnet.network)

        def work(connection: sqlite3.Connection) -> int:
            (count,) = connection.execute("SELECT count(*) FROM leases").fetchone()
            row = connection.execute("SELECT subnet FROM pool").fetchone()
            if row is not None and row["subnet"] == text:
                return int(count)
            if count:
                raise SettingsError(
                    f"subnet is {text} but {count} ports have addresses of {row['subnet']}: "
                    f"set it back, detach them or call CleanupNetwork, and change it then"
                )
            connection.execute("DELETE FROM freed")
            connection.execute("REPLACE INTO pool VALUES (1, ?, ?)", (text, FIRST_GUEST))
            return 0

        return cls(database, subnet, await database.write(work))

    async def get(self, vm_id: str) -> Lease | None:
        """Return the VM's lease."""

        def work(connection: sqlite3.Connection) -> Lease | None:
            row = connection.execute("SELECT * FROM leases WHERE vm_id = ?", (vm_id,)).fetchone()
            return row and Lease(**row)

        return await self._database.read(work)

    async def page(self, after: int, size: int) -> Sequence[Lease]:
        """Return up to `size` leases with host numbers above `after`, in their order."""
        return await self._select("WHERE host > ? ORDER BY host LIMIT ?", after, size)

    async def all(self) -> Sequence[Lease]:
        """Return all leases in the order of their addresses."""
        return await self._select("ORDER BY host")

    async def next_host(self) -> int:
        """Return the host number that `add` is to be given. Raises ResourceExhausted."""

        def work(connection: sqlite3.Connection) -> int:
            (fresh,) = connection.execute("SELECT next FROM pool").fetchone()
            if fresh <= self._subnet.last_guest:
                return int(fresh)
            row = connection.execute("SELECT host FROM freed ORDER BY turn LIMIT 1").fetchone()
            if row is None:
                raise ResourceExhausted(
                    "SUBNET_FULL",
                    f"all {self._subnet.capacity} addresses of {self._subnet.network} are taken; "
                    "detach a port, or use a larger subnet",
                    subnet=str(self._subnet.network),
                )
            return int(row["host"])

        return await self._database.read(work)

    async def add(self, vm_id: str, host: int, tap: str) -> Lease:
        """Make the lease. Raises TapTaken."""
        lease = Lease(host, vm_id, tap, time.time())

        def work(connection: sqlite3.Connection) -> None:
            _check_free(connection, tap)
            connection.execute("DELETE FROM freed WHERE host = ?", (host,))
            connection.execute("UPDATE pool SET next = next + 1 WHERE next = ?", (host,))
            connection.execute(
                "INSERT INTO leases (host, vm_id, tap, created) VALUES (?, ?, ?, ?)",
                (lease.host, lease.vm_id, lease.tap, lease.created),
            )
            self.held += 1

        await self._database.write(work)
        return lease

    async def rename(self, vm_id: str, tap: str) -> None:
        """Give the VM's lease another TAP. Raises TapTaken."""

        def work(connection: sqlite3.Connection) -> None:
            _check_free(connection, tap)
            connection.execute("UPDATE leases SET tap = ? WHERE vm_id = ?", (tap, vm_id))

        await self._database.write(work)

    async def remove(self, vm_id: str) -> None:
        """Give the VM's lease up, if it has one."""

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute(
                "DELETE FROM leases WHERE vm_id = ? RETURNING host", (vm_id,)
            ).fetchone()
            if row:
                connection.execute("INSERT INTO freed (host) VALUES (?)", (row["host"],))
                self.held -= 1

        await self._database.write(work)

    async def clear(self) -> int:
        """Give all leases up; return how many there were."""

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO freed (host) SELECT host FROM leases ORDER BY created")
            self.held = 0
            return connection.execute("DELETE FROM leases").rowcount

        return await self._database.write(work)

    async def _select(self, clause: str, *values: int) -> Sequence[Lease]:
        def work(connection: sqlite3.Connection) -> list[Lease]:
            # The clause is one of this class's own.
            rows = connection.execute(f"SELECT * FROM leases {clause}", values)  # noqa: S608
            return [Lease(**row) for row in rows]

        return await self._database.read(work)


def _check_free(connection: sqlite3.Connection, tap: str) -> None:
    if connection.execute("SELECT 1 FROM leases WHERE tap = ?", (tap,)).fetchone():
        raise TapTaken(tap)
