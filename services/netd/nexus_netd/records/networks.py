"""Networks in the store. "default" is seeded from the settings, and changed when they change."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Any

from nexus_netd.model import HostPort, Limits, NetworkSpec, Protocol
from nexus_netd.records import policies
from nexus_netd.records.policies import Policies, Write
from nexus_netd.subnet import FIRST_GUEST, Subnet
from nexus_rpc.settings import SettingsError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from nexus_netd.model import Policy
    from nexus_netd.view import View

_log = logging.getLogger(__name__)

DEFAULT = "default"
"""The network that is always there."""


class Networks:
    """What to write for a network; `view` follows."""

    def __init__(self, view: View, known: Policies) -> None:
        self._view = view
        self._policies = known

    def put(self, spec: NetworkSpec) -> Write:
        """Write a network down, new or changed; what its addresses are is not changed by it."""

        def sql(connection: sqlite3.Connection) -> None:
            _put(connection, spec, self._policies.number(spec.default_policy))

        return Write(sql, lambda: self._view.put_network(spec))

    def remove(self, name: str) -> Write:
        """Forget a network that has no ports."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM networks WHERE name = ?", (name,))

        return Write(sql, lambda: self._view.remove_network(name))

    def recount(self, name: str, after: int, released: Sequence[int]) -> Write:
        """Set which addresses are free: from `after` on, and those `released`, in that order."""

        def sql(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM released WHERE network = ?", (name,))
            connection.executemany(
                "INSERT INTO released (network, host) VALUES (?, ?)",
                [(name, host) for host in released],
            )
            connection.execute("UPDATE networks SET next = ? WHERE name = ?", (after, name))

        return Write(sql, lambda: None)


def load(connection: sqlite3.Connection, known: dict[int, Policy]) -> list[NetworkSpec]:
    """Return the networks by name."""
    rows = connection.execute("SELECT * FROM networks ORDER BY name")
    return [_spec(row, known) for row in rows]


def seed(connection: sqlite3.Connection, told: NetworkSpec, numbers: Policies) -> None:
    """Make "default" as the settings say, or take in what was changed in them since.

    What was changed by calls stays, as long as the settings say the same as before. Raises
    SettingsError for another subnet while ports have addresses of the old one.
    """
    known = numbers.load(connection)
    row = connection.execute("SELECT * FROM networks WHERE name = ?", (told.name,)).fetchone()
    spec = told if row is None else _merge(connection, row, told, known)
    numbers.keep(spec.default_policy).sql(connection)
    _put(connection, spec, numbers.number(spec.default_policy))
    connection.execute(
        "UPDATE networks SET seed = ? WHERE name = ?", (json.dumps(_fields(told)), told.name)
    )
    if row is not None:
        if spec.default_policy != known[row["policy"]]:
            # The next start cuts what they may not have open any more.
            connection.execute(
                "UPDATE ports SET unsettled = 1 WHERE network = ? AND policy IS NULL", (told.name,)
            )
        numbers.sweep(known[row["policy"]]).sql(connection)


def overlapping(spec: NetworkSpec, others: Sequence[NetworkSpec]) -> NetworkSpec | None:
    """Return one of the others that shares addresses with the network."""
    for other in others:
        if other.name == spec.name:
            continue
        if other.subnet.network.overlaps(spec.subnet.network):
            return other
        if other.ipv6 and spec.ipv6 and other.ipv6.overlaps(spec.ipv6):
            return other
    return None


def _merge(
    connection: sqlite3.Connection,
    row: sqlite3.Row,
    told: NetworkSpec,
    known: dict[int, Policy],
) -> NetworkSpec:
    before, now = json.loads(row["seed"] or "{}"), _fields(told)
    changed = {name for name in now if before.get(name) != now[name]}
    if before and changed:
        names = ", ".join(sorted(changed))
        _log.info("network %s: %s set anew, as the settings have it", told.name, names)
    stored = _spec(row, known)
    spec = replace(stored, **{name: getattr(told, name) for name in changed})
    other = overlapping(spec, load(connection, known))
    if other is not None:
        raise SettingsError(
            f"subnet {spec.subnet.network} overlaps {other.subnet.network} of network "
            f"{other.name!r}; set another, or delete that network"
        )
    if spec.subnet != stored.subnet:
        (count,) = connection.execute(
            "SELECT count(*) FROM ports WHERE network = ?", (spec.name,)
        ).fetchone()
        if count:
            raise SettingsError(
                f"subnet is {spec.subnet.network} but {count} ports have addresses of "
                f"{stored.subnet.network}: set it back and move them by `nexusctl net migrate`, "
                "or detach them first"
            )
        connection.execute("DELETE FROM released WHERE network = ?", (spec.name,))
        connection.execute("UPDATE networks SET next = ? WHERE name = ?", (FIRST_GUEST, spec.name))
    return spec


def _put(connection: sqlite3.Connection, spec: NetworkSpec, policy: int) -> None:
    fields = _fields(spec)
    details = {name: fields[name] for name in ("dns", "search", "mtu", "host_ports")}
    details["limits"] = fields["default_limits"]
    connection.execute(
        "INSERT INTO networks (name, bridge, subnet, ipv6, policy, details, seed, next)"
        " VALUES (?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (name) DO UPDATE SET"
        " bridge = excluded.bridge, subnet = excluded.subnet, ipv6 = excluded.ipv6,"
        " policy = excluded.policy, details = excluded.details",
        (
            spec.name,
            spec.bridge,
            fields["subnet"],
            fields["ipv6"],
            policy,
            json.dumps(details),
            FIRST_GUEST,
        ),
    )


def _fields(spec: NetworkSpec) -> dict[str, Any]:
    """Return the network's fields as JSON can hold them."""
    return {
        "bridge": spec.bridge,
        "subnet": str(spec.subnet.network),
        "ipv6": str(spec.ipv6 or ""),
        "dns": list(spec.dns),
        "search": list(spec.search),
        "mtu": spec.mtu,
        "default_policy": policies.render(spec.default_policy),
        "default_limits": asdict(spec.default_limits),
        "host_ports": [[int(one.protocol), one.port] for one in spec.host_ports],
    }


def _spec(row: sqlite3.Row, known: dict[int, Policy]) -> NetworkSpec:
    details = json.loads(row["details"])
    return NetworkSpec(
        name=row["name"],
        bridge=row["bridge"],
        subnet=Subnet.parse(row["subnet"]),
        ipv6=IPv6Network(row["ipv6"]) if row["ipv6"] else None,
        dns=tuple(details.get("dns", ())),
        search=tuple(details.get("search", ())),
        mtu=details.get("mtu", 1_500),
        default_policy=known[row["policy"]],
        default_limits=Limits(**details.get("limits", {})),
        host_ports=tuple(
            HostPort(Protocol(protocol), port) for protocol, port in details.get("host_ports", ())
        ),
    )
