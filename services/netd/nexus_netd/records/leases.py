"""Ports in the store: which VM holds which address, MAC and TAP, and what is its own.

An address is found without a search: first those that nobody ever had, then the one that has
been free for longest, so that a late packet seldom meets a new holder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from nexus_netd.guests import bridge_name, bridge_number, resolve
from nexus_netd.model import Limits, Port
from nexus_netd.records.policies import Write
from nexus_netd.subnet import mac, numbered_mac
from nexus_rpc.errors import ResourceExhausted

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from nexus_netd.model import Guest, NetworkSpec, Policy
    from nexus_netd.records.policies import Policies
    from nexus_netd.view import View
    from nexus_rpc.database import Database

PORTS_OF_A_BRIDGE = 250
"""Linux takes 1,023 (net/bridge/br_private.h, BR_MAX_PORTS), but each makes the next slower."""

_MOST_BRIDGES = 100  # their names end in two digits


@dataclass(frozen=True)
class Place:
    """What a new port is to have. `after` is the first address that nobody ever had, afterwards."""

    number: int
    host: int
    after: int
    bridge: str
    mac: str


class Leases:
    """The ports of all networks; `view` follows."""

    def __init__(self, database: Database, view: View, policies: Policies, last: int) -> None:
        self._database = database
        self._view = view
        self._policies = policies
        self._last = last

    async def place(self, spec: NetworkSpec, host: int | None = None) -> Place:
        """Return what the network's next port is to have, at `host` if that is free.

        Raises ResourceExhausted (SUBNET_FULL).
        """

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            (after,) = connection.execute(
                "SELECT next FROM networks WHERE name = ?", (spec.name,)
            ).fetchone()
            # Beyond it only addresses that were asked for are taken; each is passed once.
            while self._is_taken(spec, after):
                after += 1
            row = connection.execute(
                "SELECT host FROM released WHERE network = ? ORDER BY turn LIMIT 1", (spec.name,)
            ).fetchone()
            return after, row["host"] if row else 0

        after, oldest = await self._database.read(work)
        bridge = self._roomy(spec)
        if host is None:
            if after <= spec.subnet.last_guest:
                host, after = after, after + 1
            elif oldest:
                host = oldest
            else:
                raise _full(spec, f"all {spec.subnet.capacity} addresses are taken")
        address = spec.subnet.interface(host).ip
        wanted = mac(address)
        number = self._last + 1
        return Place(
            number,
            host,
            after,
            bridge,
            numbered_mac(number) if wanted in self._view.macs else wanted,
        )

    def add(self, port: Port, after: int) -> Write:
        """Make a port; `after` is as in its `Place`."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM released WHERE network = ? AND host = ?", (port.network, port.host)
            )
            connection.execute("UPDATE networks SET next = ? WHERE name = ?", (after, port.network))
            self._write(connection, port)

        return Write(sql, lambda: self._remember(port))

    def put(self, port: Port) -> Write:
        """Change a port."""

        def sql(connection: sqlite3.Connection) -> None:
            self._write(connection, port)

        return Write(sql, lambda: self._remember(port))

    def refresh(self, vm_ids: Collection[str]) -> Write:
        """Resolve ports anew whose network changes in the same transaction."""

        def apply() -> None:
            for vm_id in vm_ids:
                self._remember(self._view.ports[vm_id])

        return Write(lambda _: None, apply)

    def rehost(self, ports: Sequence[Port]) -> Write:
        """Give ports other addresses of their network, all at once: they may swap."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE ports SET host = -host WHERE number = ?", [(port.number,) for port in ports]
            )
            connection.executemany(
                "UPDATE ports SET host = ? WHERE number = ?",
                [(port.host, port.number) for port in ports],
            )

        def apply() -> None:
            for port in ports:
                self._remember(port)

        return Write(sql, apply)

    def settle(self, vm_ids: Collection[str], *, unsettled: bool = False) -> Write:
        """Write down that the ports' connections are as they may be, or maybe not."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE ports SET unsettled = ? WHERE vm_id = ?",
                [(unsettled, vm_id) for vm_id in vm_ids],
            )

        return Write(sql, lambda: None)

    def remove(self, port: Port) -> Write:
        """Give a port up, its links and publications with it; its address is free from now on."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM ports WHERE vm_id = ?", (port.vm_id,))
            connection.execute(
                "INSERT INTO released (network, host) SELECT name, :host FROM networks"
                " WHERE name = :network AND :host < next",
                {"network": port.network, "host": port.host},
            )

        return Write(sql, lambda: self._forget(port.vm_id))

    def clear(self) -> Write:
        """Give all ports up; the one that was made first comes first in turn."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO released (network, host) SELECT network, host FROM ports"
                " JOIN networks ON name = network WHERE host < next ORDER BY number"
            )
            connection.execute("DELETE FROM ports")

        def apply() -> None:
            for vm_id in list(self._view.ports):
                self._forget(vm_id)

        return Write(sql, apply)

    def resolve(self, port: Port) -> Guest:
        """Return the guest behind a port."""
        return resolve(port, self._view.networks[port.network], self._policies.number)

    async def page(self, after: int, size: int, network: str) -> Sequence[Port]:
        """Return up to `size` ports with numbers above `after`, oldest first."""
        where = "WHERE number > ? AND network = ?" if network else "WHERE number > ?"
        values = (after, network, size) if network else (after, size)

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(
                f"SELECT vm_id FROM ports {where} ORDER BY number LIMIT ?",  # noqa: S608  # one of two
                values,
            )
            return [row["vm_id"] for row in rows]

        found = await self._database.read(work)
        return [self._view.ports[vm_id] for vm_id in found if vm_id in self._view.ports]

    async def unsettled(self) -> Sequence[str]:
        """Return the VMs whose connections may not be as they should be."""

        def work(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute("SELECT vm_id FROM ports WHERE unsettled ORDER BY number")
            return [row["vm_id"] for row in rows]

        return await self._database.read(work)

    async def released(self, network: str) -> tuple[int, Sequence[int]]:
        """Return the first address that nobody ever had, and those given back, in turn."""

        def work(connection: sqlite3.Connection) -> tuple[int, list[int]]:
            (after,) = connection.execute(
                "SELECT next FROM networks WHERE name = ?", (network,)
            ).fetchone()
            rows = connection.execute(
                "SELECT host FROM released WHERE network = ? ORDER BY turn", (network,)
            )
            return after, [row["host"] for row in rows]

        return await self._database.read(work)

    def _is_taken(self, spec: NetworkSpec, host: int) -> bool:
        if host > spec.subnet.last_guest:
            return False
        return self._view.at_address(spec.subnet.interface(host).ip) is not None

    def _roomy(self, spec: NetworkSpec) -> str:
        counts = self._view.bridges_of(spec.name)
        for number in range(_MOST_BRIDGES):
            name = bridge_name(spec.bridge, number)
            if counts.get(name, 0) < PORTS_OF_A_BRIDGE:
                return name
        raise _full(spec, f"its {_MOST_BRIDGES} bridges hold {PORTS_OF_A_BRIDGE} ports each")

    def _write(self, connection: sqlite3.Connection, port: Port) -> None:
        details = {
            "limits": asdict(port.limits),
            "upstream_dns": port.upstream_dns,
            "search": port.search,
            "vm_name": port.vm_name,
        }
        bridge = bridge_number(self._view.networks[port.network].bridge, port.bridge)
        connection.execute(
            "INSERT INTO ports (number, vm_id, network, host, bridge, tap, mac, created, policy,"
            " details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (number) DO UPDATE SET host = excluded.host, bridge = excluded.bridge,"
            " tap = excluded.tap, policy = excluded.policy, details = excluded.details",
            (
                port.number,
                port.vm_id,
                port.network,
                port.host,
                bridge,
                port.tap,
                port.mac,
                port.created,
                port.policy and self._policies.number(port.policy),
                json.dumps(details),
            ),
        )

    def _remember(self, port: Port) -> None:
        self._last = max(self._last, port.number)
        self._view.put_port(port, self.resolve(port))

    def _forget(self, vm_id: str) -> None:
        for link in self._view.links_with(vm_id):
            self._view.remove_link(link)
        for publication in list(self._view.publications_of(vm_id)):
            self._view.remove_publication(publication)
        self._view.remove_port(vm_id)


def load(
    connection: sqlite3.Connection, bridges: dict[str, str], policies: dict[int, Policy]
) -> tuple[int, list[Port]]:
    """Return the last port's number, and all ports, oldest first.

    `bridges` are the first bridges of the networks.
    """
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'ports'").fetchone()
    rows = connection.execute("SELECT * FROM ports ORDER BY number")
    return (row["seq"] if row else 0), [_port(row, bridges, policies) for row in rows]


def _port(row: sqlite3.Row, bridges: dict[str, str], policies: dict[int, Policy]) -> Port:
    details = json.loads(row["details"])
    return Port(
        number=row["number"],
        vm_id=row["vm_id"],
        network=row["network"],
        host=row["host"],
        bridge=bridge_name(bridges[row["network"]], row["bridge"]),
        tap=row["tap"],
        mac=row["mac"],
        created=row["created"],
        policy=policies[row["policy"]] if row["policy"] else None,
        limits=Limits(**details.get("limits", {})),
        upstream_dns=tuple(details.get("upstream_dns", ())),
        search=tuple(details.get("search", ())),
        vm_name=details.get("vm_name", ""),
    )


def _full(spec: NetworkSpec, why: str) -> ResourceExhausted:
    return ResourceExhausted(
        "SUBNET_FULL",
        f"network {spec.name} ({spec.subnet.network}) is full: {why}; "
        "detach a port, or use another network",
        network=spec.name,
        subnet=str(spec.subnet.network),
    )
