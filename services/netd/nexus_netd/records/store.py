"""The store: what must be, durable in SQLite and at hand in memory. The kernel follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_netd.guests import resolve
from nexus_netd.records import leases, links, networks, publications
from nexus_netd.records.policies import Policies
from nexus_netd.view import View

if TYPE_CHECKING:
    import sqlite3

    from nexus_netd.model import NetworkSpec
    from nexus_netd.records.policies import Write
    from nexus_rpc.database import Database


class Store:
    """Networks, ports, links, publications and policies. Use `Store.open`.

    Changes must not overlap, and are not to be cancelled: the caller sees to both.
    """

    def __init__(self, database: Database, view: View, policies: Policies, last: int) -> None:
        self._database = database
        self.view = view
        self.policies = policies
        self.networks = networks.Networks(view, policies)
        self.leases = leases.Leases(database, view, policies, last)
        self.links = links.Links(database, view)
        self.publications = publications.Publications(database, view)

    @classmethod
    async def open(cls, database: Database, default: NetworkSpec) -> Store:
        """Take up what is in `database`; the network "default" is to be as the settings say.

        Raises SettingsError when they cannot be followed: VMs hold addresses of before.
        """
        policies = Policies()

        def work(connection: sqlite3.Connection) -> tuple[View, int]:
            networks.seed(connection, default, policies)
            return _load(connection, policies)

        view, last = await database.write(work)
        return cls(database, view, policies, last)

    async def commit(self, *writes: Write) -> None:
        """Write all of it in one transaction; remember it once it is durable.

        Raises ResourceExhausted (DISK_FULL); nothing is changed then.
        """

        def work(connection: sqlite3.Connection) -> None:
            for write in writes:
                write.sql(connection)

        await self._database.write(work)
        for write in writes:
            write.apply()


def _load(connection: sqlite3.Connection, policies: Policies) -> tuple[View, int]:
    view = View()
    known = policies.load(connection)
    bridges = {}
    for spec in networks.load(connection, known):
        view.put_network(spec)
        bridges[spec.name] = spec.bridge
    last, ports = leases.load(connection, bridges, known)
    for port in ports:
        view.put_port(port, resolve(port, view.networks[port.network], policies.number))
    for link in links.load(connection):
        view.put_link(link)
    for publication in publications.load(connection):
        view.put_publication(publication)
    return view, last
