"""Records of VMs that cannot be read: told as what they are, and otherwise left alone.

SQLite holds the kind of each column (STRICT) and says when a page is no page of its own any more.
What is left is text and numbers that a fault of disk or memory, or a hand, has changed.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from nexus_rpc.errors import FailedPrecondition
from nexus_rpc.ids import is_vm_id
from nexus_vmm.states import State
from nexus_vmm.vm import (
    Exit,
    Goal,
    Lifetime,
    Network,
    RestartPolicy,
    Restarts,
    Spec,
    TimeToLive,
    Vm,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading a damaged record may raise."""

LATEST = 10**17
"""The latest time that is believed, in microseconds: in the year 5138. Timestamps end with 9999."""
_MOST = 2**32 - 1  # what the proto can tell
_LARGEST = 2**63 - 1

# Of each value the kind, and of a number the most; of one below 0 that with either sign.
_NETWORK = Network("", "", "", "", ("",), search=("",), mtu=_MOST)
_POLICY = RestartPolicy(fixed_seconds=_MOST)
_TTL = TimeToLive(_MOST, _MOST)
_MODELS = {
    Spec: Spec(
        _MOST, _MOST, "", "", _LARGEST, _NETWORK, False, _POLICY, tags=(("", ""),), ttl=_TTL
    ),
    Restarts: Restarts(_MOST, LATEST, LATEST, _MOST, ends=(LATEST,)),
    Lifetime: Lifetime(LATEST, LATEST, _LARGEST, offset=-LATEST),
    Exit: Exit("", "", code=-_MOST, signal=_MOST, time=LATEST),
}
_COLUMNS = {"created": LATEST, "changed": LATEST, "pid": _MOST, "cid": _MOST}
_NO_SPEC = Spec(0, 0, "", "", 0, None, False)
_LONGEST = 200


def check(part: Spec | Restarts | Lifetime | Exit) -> None:
    """Raise ValueError if a value of `part` is of another kind than it is to be, or beyond all."""
    _check("", part, _MODELS[type(part)])


def check_columns(row: Mapping[str, Any]) -> None:
    """Raise ValueError if a number of the record `row` is beyond all that it can be."""
    for name, most in _COLUMNS.items():
        if not 0 <= row[name] <= most:
            raise ValueError(f"{name} is {row[name]!r}")


def damaged(row: Mapping[str, Any], error: Exception) -> Vm:
    """Return what stands for the VM whose record `row` cannot be read, for the reason `error`."""
    why = "".join(char if char.isprintable() else "?" for char in str(error)[:_LONGEST])
    told = (
        f"its record is damaged ({why}): put back a copy of the database (see recovery.md), "
        "or give the VM up: DeleteVm ends it and removes its disk"
    )
    return Vm(
        seq=row["seq"],
        id=row["id"],
        name=row["name"],
        spec=_NO_SPEC,
        state=State.FAILED,
        reason=told,
        created=min(max(row["created"], 0), LATEST),
        changed=min(max(row["changed"], 0), LATEST),
        goal=Goal.DELETE if row["goal"] == Goal.DELETE else Goal.STOP,
        boot=row["boot"],
        pid=0,
        cid=min(max(row["cid"], 0), _MOST),
        restarts=Restarts(),
        revision=row["revision"],
        change=row["change"],
        damage=told,
    )


def refuse_damaged(vm: Vm, *, deletion: bool = False) -> None:
    """Raise FailedPrecondition (VM_DAMAGED) for a VM whose record is damaged.

    Its deletion is let through unless it is the id that cannot be read: no path is made from that.
    """
    if vm.damage and not (deletion and is_vm_id(vm.id)):
        raise FailedPrecondition("VM_DAMAGED", f"VM {vm.name!r}: {vm.damage}", vm=vm.name)


def _check(name: str, value: object, model: object) -> None:
    if isinstance(model, Network) and value is None:
        return
    if type(value) is not type(model):
        raise ValueError(f"{name or 'the record'} is {value!r}")
    if type(model) is int and not min(model, 0) <= value <= abs(model):  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}")
    if is_dataclass(model):
        for field in fields(model):
            _check(field.name, getattr(value, field.name), getattr(model, field.name))
    elif isinstance(value, tuple) and isinstance(model, tuple):
        for one in value:
            _check(name, one, model[0])
