"""Changing the spec of a VM that there is.

The functions run inside a transaction of the database thread, and return the VM and whether it was
changed. Each checks, under `request`, all that it refuses before it changes anything.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from nexus_rpc import requests
from nexus_rpc.errors import FailedPrecondition, invalid_field
from nexus_vmm import lifetime
from nexus_vmm.calls import is_held
from nexus_vmm.clock import moment
from nexus_vmm.records import rows
from nexus_vmm.records.damage import refuse_damaged
from nexus_vmm.restarts import after_update

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from nexus_vmm.calls import Request
    from nexus_vmm.limits.admission import Admission
    from nexus_vmm.vm import Network, Spec, Vm


class When(Enum):
    """When UpdateVm may change a field."""

    ALWAYS = auto()
    AT_REST = auto()
    NEVER = auto()


FIELDS = {
    "vcpu_count": When.AT_REST,
    "memory_mib": When.AT_REST,
    "image": When.NEVER,
    "kernel": When.NEVER,
    "disk_mib": When.AT_REST,
    "network": When.NEVER,
    "balloon": When.AT_REST,
    "restart": When.ALWAYS,
    "tags": When.ALWAYS,
    "ttl": When.ALWAYS,
    "serial_input": When.AT_REST,
}
"""The fields of VmSpec (see UpdateVm)."""


def check_mask(paths: Sequence[str]) -> list[str]:
    """Return the fields that `paths` name, each once. Raises InvalidArgument."""
    if not paths or not FIELDS.keys() >= set(paths):
        raise invalid_field("update_mask", ", ".join(paths), f"some of {', '.join(FIELDS)}")
    return [field for field in FIELDS if field in paths]


def etag(vm: Vm) -> str:
    """Return what changes whenever the VM's spec does; two VMs never share one."""
    return f"{vm.seq}-{vm.revision}"


def update(
    db: sqlite3.Connection,
    request: Request,
    ref: str,
    wanted: Spec,
    fields: Sequence[str],
    *,
    expected: str,
    admission: Admission,
) -> tuple[Vm, bool]:
    """Give the VM the values that `fields` have in `wanted` (see UpdateVm).

    `expected` is the etag that the caller read, or "". Raises NotFound, FailedPrecondition
    (ETAG_MISMATCH, VM_STATE, FIELD_FIXED) and ResourceExhausted (NO_CAPACITY, QUOTA_EXCEEDED).
    """
    vm, done = _claim(db, request, ref)
    if done:
        return vm, False
    if expected not in ("", etag(vm)):
        raise FailedPrecondition(
            "ETAG_MISMATCH",
            f"the spec of VM {vm.name!r} has changed: its etag is {etag(vm)}, not {expected}; "
            "read the VM again",
            vm=vm.name,
            etag=etag(vm),
        )
    changed = [field for field in fields if getattr(vm.spec, field) != getattr(wanted, field)]
    if "disk_mib" in changed:
        _check_growth(vm, wanted)
    for field in changed:
        _check_when(vm, field)
    spec = replace(vm.spec, **{field: getattr(wanted, field) for field in changed})
    admission.check_change(db, vm, spec)
    requests.finish(db, request.id)
    if not changed:
        return vm, False
    vm = rows.set_spec(db, vm, spec)
    if "ttl" in changed and vm.lifetime.began:
        vm = rows.set_lifetime(db, vm, lifetime.use(vm.lifetime, moment()))
    return rows.set_restarts(db, vm, after_update(vm.restarts, spec.restart)), True


def set_network(
    db: sqlite3.Connection, request: Request, ref: str, network: Network
) -> tuple[Vm, bool]:
    """Give the VM another interface (see UpdateNetworkInterface).

    Raises NotFound, FailedPrecondition (VM_STATE, NO_INTERFACE).
    """
    vm, done = _claim(db, request, ref)
    requests.finish(db, request.id)
    if done or vm.spec.network == network:
        return vm, False
    _check_interface(vm, network)
    return rows.set_spec(db, vm, replace(vm.spec, network=network)), True


def _claim(db: sqlite3.Connection, request: Request, ref: str) -> tuple[Vm, bool]:
    """Return the VM that the request is about, and whether the request was done before."""
    named = rows.find(db, ref)
    subject = named.id if named else ""
    claim = requests.claim(db, request.id, request.method, request.body, subject)
    vm = rows.known(db, claim.subject or ref)
    refuse_damaged(vm)
    return vm, claim.state == "done"


def _check_when(vm: Vm, field: str) -> None:
    when = FIELDS[field]
    if when is When.NEVER:
        raise FailedPrecondition(
            "FIELD_FIXED",
            f"{field} of VM {vm.name!r} cannot change: "
            + ("UpdateNetworkInterface does it" if field == "network" else "create another VM"),
            vm=vm.name,
            field=field,
        )
    if when is When.AT_REST and is_held(vm):
        raise FailedPrecondition(
            "VM_STATE",
            f"VM {vm.name!r} is {vm.state}: {field} changes only while it does not run "
            "(stop it first)",
            vm=vm.name,
            state=vm.state,
        )


def _check_growth(vm: Vm, wanted: Spec) -> None:
    """Refuse a smaller disk: what its guest wrote may lie anywhere on it."""
    if wanted.disk_mib < vm.spec.disk_mib:
        raise FailedPrecondition(
            "FIELD_FIXED",
            f"disk_mib of VM {vm.name!r} is {vm.spec.disk_mib} and cannot become "
            f"{wanted.disk_mib}: a disk only grows; create another VM",
            vm=vm.name,
            field="disk_mib",
        )


def _check_interface(vm: Vm, network: Network) -> None:
    """Refuse an interface that the VM cannot have now."""
    known = vm.spec.network
    if known is None:
        raise FailedPrecondition(
            "NO_INTERFACE",
            f"VM {vm.name!r} was made without a network; create it anew to give it one",
            vm=vm.name,
        )
    if is_held(vm) and (known.tap, known.mac) != (network.tap, network.mac):
        raise FailedPrecondition(
            "VM_STATE",
            f"VM {vm.name!r} is {vm.state} on {known.tap} with {known.mac}: "
            "no other TAP or MAC (stop it first)",
            vm=vm.name,
            state=vm.state,
        )
