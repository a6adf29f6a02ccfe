"""Distinct policies in the store: equal ones are one; a number never comes to mean another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from nexus_netd.model import EgressRule, Mode, Policy, Protocol

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from nexus_netd.model import Cidr

OPEN, NONE = 1, 2
"""The numbers of the two policies without rules."""


_SWEPT = 16


@dataclass(frozen=True)
class Write:
    """A part of a transaction: what is written, and what is remembered once it is durable."""

    sql: Callable[[sqlite3.Connection], object]
    apply: Callable[[], object]


class Policies:
    """Numbers of policies; those of the two without rules are fixed."""

    def __init__(self) -> None:
        self._numbers: dict[Policy, int] = {}
        self._swept: dict[Policy, int] = {}  # the last few: an operation may be taken back
        self._last = NONE

    def load(self, connection: sqlite3.Connection) -> dict[int, Policy]:
        """Take up what the database holds; return it by number."""
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'policies'")
        self._last = row.fetchone()["seq"]
        rows = connection.execute("SELECT number, rules FROM policies")
        found = {row["number"]: parse(row["rules"]) for row in rows}
        self._numbers = {policy: number for number, policy in found.items()}
        return found

    def number(self, policy: Policy) -> int:
        """Return the policy's number, a new one if it has none yet."""
        known = self._numbers.get(policy) or self._swept.get(policy)
        if known is None:
            self._last += 1
            known = self._numbers[policy] = self._last
        return known

    def keep(self, policy: Policy | None) -> Write:
        """Write the policy down, before what refers to it."""

        def sql(connection: sqlite3.Connection) -> None:
            if policy is not None:
                connection.execute(
                    "INSERT INTO policies VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (self.number(policy), render(policy)),
                )

        def apply() -> None:
            if policy is not None and policy in self._swept:
                self._numbers[policy] = self._swept.pop(policy)

        return Write(sql, apply)

    def sweep(self, policy: Policy | None) -> Write:
        """Forget the policy if nothing refers to it any more."""
        if policy is None or policy.mode is not Mode.RULES:
            return Write(lambda _: None, lambda: None)
        number = self.number(policy)
        gone = False

        def sql(connection: sqlite3.Connection) -> None:
            nonlocal gone
            gone = bool(
                connection.execute(
                    "DELETE FROM policies WHERE number = :number"
                    " AND NOT EXISTS (SELECT 1 FROM ports WHERE policy = :number)"
                    " AND NOT EXISTS (SELECT 1 FROM networks WHERE policy = :number)",
                    {"number": number},
                ).rowcount
            )

        def apply() -> None:
            if gone:
                self._numbers.pop(policy, None)
                self._swept[policy] = number
                if len(self._swept) > _SWEPT:
                    del self._swept[next(iter(self._swept))]

        return Write(sql, apply)


def render(policy: Policy) -> str:
    """Return the policy as the store holds it: equal policies are equal texts."""
    if policy.mode is not Mode.RULES:
        return json.dumps({"mode": policy.mode.value})
    return json.dumps(
        {"mode": policy.mode.value, "rules": [_render(rule) for rule in policy.rules]}
    )


def parse(text: str) -> Policy:
    """Return what `render` was given."""
    value = json.loads(text)
    return Policy(Mode(value["mode"]), tuple(_parse(rule) for rule in value.get("rules", ())))


def _render(rule: EgressRule) -> dict[str, Any]:
    return {
        "allow": rule.allow,
        "cidr": rule.cidr and str(rule.cidr),
        "domain": rule.domain,
        "protocol": int(rule.protocol),
        "ports": rule.ports,
    }


def _parse(value: dict[str, Any]) -> EgressRule:
    cidr: Cidr | None = ip_network(value["cidr"]) if value["cidr"] else None
    ports = value["ports"]
    return EgressRule(
        value["allow"],
        cidr,
        value["domain"],
        Protocol(value["protocol"]),
        (ports[0], ports[1]) if ports else None,
    )
