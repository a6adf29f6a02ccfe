"""The record of a VM: a row of the table `vms`, with its revision, as a Vm.

What was parsed is kept by its text: a VM is read far more often than it changes, and all that hold
it share one spec.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nexus_rpc.ids import is_vm_id
from nexus_vmm.records.damage import LATEST, UNREADABLE, check, check_columns, damaged
from nexus_vmm.states import State
from nexus_vmm.vm import (
    Condition,
    Delay,
    Exit,
    ExpireAction,
    Goal,
    Lifetime,
    Network,
    RestartPolicy,
    Restarts,
    Spec,
    TimeToLive,
    Transition,
    Vm,
)

if TYPE_CHECKING:
    import sqlite3

SELECT = (
    "SELECT vms.*, ifnull(changes.revision, 0) AS change"
    " FROM vms LEFT JOIN changes ON changes.vm = vms.id "
)
"""The records; what follows says which."""

# What is damaged must keep no other VM from being found: nothing is read that is not of its kind.
SPEC = "CASE WHEN json_valid(vms.spec) THEN vms.spec ELSE '{}' END"
"""The spec of a record of `vms` as JSON, in SQL."""
_SPECS = 1024
_OTHERS = 256
"""What is kept of each kind; most VMs have the same other parts."""


def to_vm(row: sqlite3.Row) -> Vm:
    """Return the VM of a row of `SELECT`; see `damage` for one that cannot be read."""
    values = dict(zip(row.keys(), row, strict=True))  # dict(row) looks each column up
    try:
        return _whole(values)
    except UNREADABLE as error:
        return damaged(dict(row), error)


def _whole(values: dict[str, Any]) -> Vm:
    if not is_vm_id(values["id"]):
        raise ValueError(f"the id is {values['id']!r}")
    check_columns(values)
    return Vm(
        spec=_spec(values.pop("spec")),
        restarts=_restarts(values.pop("restarts")),
        lifetime=_lifetime(values.pop("lifetime")),
        last_exit=_exit(values.pop("last_exit")),
        state=_state(values.pop("state")),
        goal=Goal(values.pop("goal")),
        **values,
    )


def to_transition(row: sqlite3.Row) -> Transition | None:
    """Return the change of state of a row of `transitions`, or None where it cannot be read."""
    if not 0 <= row["time"] <= LATEST:
        return None
    try:
        return Transition(_state(row["old"]), _state(row["new"]), row["reason"], row["time"])
    except ValueError:
        return None


def has_tag(key: str, value: str = "") -> str:
    """Return SQL for whether a record of `vms` has a tag; `key` and `value` are parameters of it.

    Without `value` any will do.
    """
    wanted = f"tag.value ->> 0 = {key}" + (f" AND tag.value ->> 1 = {value}" if value else "")
    return (
        f"EXISTS (SELECT 1 FROM json_each({SPEC}, '$.tags') AS tag"  # noqa: S608  # no caller's
        f" WHERE CASE WHEN tag.type = 'array' THEN {wanted} END)"
    )


def to_text(part: Spec | Restarts | Lifetime | Exit) -> str:
    """Return a part of a VM as its column has it."""
    return json.dumps(asdict(part))


def _state(text: str) -> State:
    state = State(text)
    if state is State.DELETED:
        raise ValueError(f"the state is {text!r}")
    return state


@lru_cache(_SPECS)
def _spec(text: str) -> Spec:
    spec = json.loads(text)
    network = spec.pop("network")
    if network:
        lists = {"dns": tuple(network["dns"]), "search": tuple(network.get("search", ()))}
        network = Network(**network | lists)
    # Rows of an earlier release have none of these.
    restart, ttl = spec.pop("restart", {}), spec.pop("ttl", {})
    tags = tuple((key, value) for key, value in spec.pop("tags", ()))
    whole = Spec(**spec, network=network, restart=_policy(**restart), ttl=_ttl(**ttl), tags=tags)
    check(whole)
    return whole


@lru_cache(_OTHERS)
def _restarts(text: str) -> Restarts:
    restarts = json.loads(text)
    whole = Restarts(**restarts | {"ends": tuple(restarts.get("ends", ()))})
    check(whole)
    return whole


@lru_cache(_OTHERS)
def _lifetime(text: str) -> Lifetime:
    whole = Lifetime(**json.loads(text))
    check(whole)
    return whole


@lru_cache(_OTHERS)
def _exit(text: str) -> Exit | None:
    end = json.loads(text)
    if end is None:
        return None
    whole = Exit(**end)
    check(whole)
    return whole


def _policy(
    condition: str = Condition.NONE, delay: str = Delay.BACKOFF, fixed_seconds: int = 0
) -> RestartPolicy:
    return RestartPolicy(Condition(condition), Delay(delay), fixed_seconds)


def _ttl(
    max_seconds: int = 0, idle_seconds: int = 0, action: str = ExpireAction.STOP
) -> TimeToLive:
    return TimeToLive(max_seconds, idle_seconds, ExpireAction(action))
