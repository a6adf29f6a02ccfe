"""Lists of VMs: which of them, in which order, a page at a time.

A page begins after the key of the last VM of the page before, whether that VM is still there or
not, so no page depends on how many came before it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc import paging
from nexus_rpc.errors import invalid_field
from nexus_rpc.masks import check_mask
from nexus_vmm.api.convert import STATES
from nexus_vmm.api.tags import check_tags
from nexus_vmm.records import rows
from nexus_vmm.records.record import SELECT, SPEC, has_tag, to_vm

if TYPE_CHECKING:
    import sqlite3

    from nexus_rpc.masks import Mask
    from nexus_vmm.states import State
    from nexus_vmm.vm import Transition, Vm


class _Order(NamedTuple):
    """What a list is ordered by, in SQL, and its type."""

    column: str
    kind: type[str | int]


_CREATED = _Order("vms.seq", int)
_ORDERS: dict[vmm_pb2.VmOrder.ValueType, _Order] = {
    vmm_pb2.VM_ORDER_UNSPECIFIED: _CREATED,
    vmm_pb2.VM_ORDER_CREATE_TIME: _CREATED,
    vmm_pb2.VM_ORDER_NAME: _Order("vms.name", str),
    vmm_pb2.VM_ORDER_STATE_TIME: _Order("vms.changed", int),
    vmm_pb2.VM_ORDER_MEMORY: _Order(f"CAST(ifnull({SPEC} ->> 'memory_mib', 0) AS INTEGER)", int),
}
"""VMs that are equal by it are told apart by their `seq`, which counts creations."""

_NAMED = {number: state for state, number in STATES.items()}
_PREFIX = re.compile(r"[a-z0-9-]{1,63}")
_IMAGE = re.compile(r"[a-z0-9._-]{1,63}")
_AFTER_ALL = "\x7f"
"""Sorts after every character of a name."""


@dataclass(frozen=True)
class Page:
    """VMs of a list, the histories of those by `seq`, and the token for what follows, or ""."""

    vms: list[Vm]
    histories: dict[int, list[Transition]]
    next_token: str


@dataclass(frozen=True)
class Listing:
    """A page that is asked for.

    `conditions` are those of the filter, as SQL for their `values`. `scope` tells lists of another
    filter or order apart. `after` is the key of the last VM of the page before, empty for none.
    `mask` is of what is to be told of each VM, None for all but its history.
    """

    conditions: tuple[str, ...]
    values: tuple[str | int, ...]
    order: _Order
    descending: bool
    size: int
    scope: str
    after: tuple[str | int, ...]
    mask: Mask | None

    def page(self, db: sqlite3.Connection) -> Page:
        """Return the page, inside a transaction of the database thread."""
        column = self.order.column
        conditions = list(self.conditions)
        if self.after:
            conditions.append(f"({column}, vms.seq) {'<' if self.descending else '>'} (?, ?)")
        way = "DESC" if self.descending else "ASC"
        # One more than asked for tells whether there is another page.
        found = db.execute(
            f"{SELECT} WHERE {' AND '.join(conditions) or 'TRUE'}"
            f" ORDER BY {column} {way}, vms.seq {way} LIMIT ?",
            (*self.values, *self.after, self.size + 1),
        ).fetchall()
        vms = [to_vm(row) for row in found[: self.size]]
        told = vms if self.mask and self.mask.names("history") else []
        histories = {vm.seq: rows.history(db, vm.seq) for vm in told}
        more = len(found) > self.size
        return Page(vms, histories, self._token(db, vms[-1].seq) if more else "")

    def _token(self, db: sqlite3.Connection, seq: int) -> str:
        # As SQL has it: of a damaged record the VM does not tell.
        query = f"SELECT {self.order.column} FROM vms WHERE seq = ?"  # noqa: S608  # of the table above
        (place,) = db.execute(query, (seq,)).fetchone()
        return paging.seal(self.scope, place, seq)


def check_listing(request: vmm_pb2.ListVmsRequest) -> Listing:
    """Return what is asked for. Raises InvalidArgument."""
    order = _ORDERS.get(request.order_by)
    if order is None:
        known = ", ".join(vmm_pb2.VmOrder.Name(number) for number in _ORDERS)
        raise invalid_field("order_by", request.order_by, f"one of {known}")
    parts = _conditions(request.filter)
    scope = _scope(request)
    return Listing(
        conditions=tuple(condition for condition, _ in parts),
        values=tuple(value for _, values in parts for value in values),
        order=order,
        descending=request.descending,
        size=paging.page_size(request.page_size),
        scope=scope,
        after=paging.unseal(scope, request.page_token, order.kind, int),
        mask=check_mask("field_mask", request.field_mask.paths, vmm_pb2.Vm.DESCRIPTOR),
    )


def _conditions(wanted: vmm_pb2.VmFilter) -> list[tuple[str, tuple[str, ...]]]:
    """Return each condition of a filter as SQL, with its values."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if wanted.states:
        states = tuple(_state(number) for number in dict.fromkeys(wanted.states))
        found.append((f"vms.state IN ({', '.join('?' * len(states))})", states))
    if wanted.name_prefix:
        prefix = _text("name_prefix", wanted.name_prefix, _PREFIX, "1 to 63 of a-z, 0-9 and '-'")
        found.append(("vms.name >= ? AND vms.name < ?", (prefix, prefix + _AFTER_ALL)))
    if wanted.image:
        words = "1 to 63 of a-z, 0-9, '.', '_' and '-'"
        image = _text("image", wanted.image, _IMAGE, words)
        found.append((f"{SPEC} ->> 'image' = ?", (image,)))
    for key, value in check_tags("filter.tags", wanted.tags):
        if value:
            found.append((has_tag("?", "?"), (key, value)))
        else:
            found.append((has_tag("?"), (key,)))
    return found


def _state(number: vmm_pb2.VmState.ValueType) -> State:
    if number not in _NAMED:
        known = ", ".join(vmm_pb2.VmState.Name(number) for number in _NAMED)
        raise invalid_field("filter.states", number, f"some of {known}")
    return _NAMED[number]


def _text(field: str, value: str, pattern: re.Pattern[str], words: str) -> str:
    if pattern.fullmatch(value) is None:
        raise invalid_field(f"filter.{field}", value, words)
    return value


def _scope(request: vmm_pb2.ListVmsRequest) -> str:
    """Return a digest of all that the pages of one list have in common."""
    order = request.order_by or vmm_pb2.VM_ORDER_CREATE_TIME
    listed = vmm_pb2.ListVmsRequest(
        filter=request.filter, order_by=order, descending=request.descending
    )
    return hashlib.sha256(listed.SerializeToString(deterministic=True)).hexdigest()[:16]
