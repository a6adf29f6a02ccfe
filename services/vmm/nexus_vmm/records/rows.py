"""VMs as rows of SQLite. All functions but one run inside a transaction of the database thread."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nexus_rpc import requests
from nexus_rpc.database import Database
from nexus_rpc.errors import NotFound
from nexus_rpc.ids import is_vm_id, new_vm_id, vm_uid
from nexus_vmm.records import changes
from nexus_vmm.records.changes import Gone
from nexus_vmm.records.record import SELECT, to_text, to_transition, to_vm
from nexus_vmm.states import Event, State, after
from nexus_vmm.vm import Goal

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from nexus_vmm.vm import Boot, Exit, Lifetime, Restarts, Spec, Transition, Vm

MIGRATIONS = (
    """
    CREATE TABLE vms (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      id TEXT NOT NULL UNIQUE,
      name TEXT NOT NULL UNIQUE,
      spec TEXT NOT NULL,
      state TEXT NOT NULL,
      reason TEXT NOT NULL,
      created INTEGER NOT NULL,
      changed INTEGER NOT NULL,
      goal TEXT NOT NULL,
      boot TEXT NOT NULL,
      pid INTEGER NOT NULL,
      cid INTEGER NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE transitions (
      n INTEGER PRIMARY KEY AUTOINCREMENT,
      vm INTEGER NOT NULL REFERENCES vms (seq) ON DELETE CASCADE,
      old TEXT NOT NULL,
      new TEXT NOT NULL,
      reason TEXT NOT NULL,
      time INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX transitions_by_vm ON transitions (vm, n);
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID
    """,
    requests.SCHEMA,
    """
    ALTER TABLE vms ADD COLUMN restarts TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE vms ADD COLUMN revision INTEGER NOT NULL DEFAULT 1
    """,
    """
    ALTER TABLE vms ADD COLUMN lifetime TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE vms ADD COLUMN last_exit TEXT NOT NULL DEFAULT 'null'
    """,
    changes.SCHEMA,
    """
    CREATE TABLE setting_versions (
      version INTEGER PRIMARY KEY AUTOINCREMENT,
      time INTEGER NOT NULL,
      body TEXT NOT NULL
    ) STRICT
    """,
    changes.GAPS,
)

HISTORY = 20
"""Changes of state that are kept for each VM."""

# Context ids below it belong to the hypervisor, the loopback and the host (vsock(7)).
_FIRST_CID = 3
_VERSION = "firecracker_version"
_HOST_BOOT = "host_boot"
_BEAT = "beat"


async def open_database(path: Path, reserve: int = 0) -> Database:
    """Open the database of all that vmm knows (see `Database.open`).

    A text that is damaged must not keep all others from being read.
    """
    return await Database.open(path, MIGRATIONS, reserve, errors="replace")


def find(db: sqlite3.Connection, ref: str) -> Vm | None:
    """Return the VM with the id or name `ref`; no name has the form of an id."""
    row = db.execute(f"{SELECT} WHERE id = ? OR name = ?", (ref, ref)).fetchone()
    return to_vm(row) if row else None


def known(db: sqlite3.Connection, ref: str) -> Vm:
    """Return the VM with the id or name `ref`. Raises NotFound (VM_NOT_FOUND)."""
    vm = find(db, ref)
    if vm is None:
        raise not_found(ref)
    return vm


def not_found(ref: str) -> NotFound:
    """Return the error of a reference that leads to no VM."""
    return NotFound("VM_NOT_FOUND", f"there is no VM {ref!r}", vm=ref)


def every(db: sqlite3.Connection) -> list[Vm]:
    """Return every VM, oldest first."""
    return [to_vm(row) for row in db.execute(f"{SELECT} ORDER BY seq")]


def is_free(db: sqlite3.Connection, vm_id: str) -> bool:
    """Whether no VM has the user id that `vm_id` gives (see `vm_uid`)."""
    return vm_uid(vm_id) not in _uids(db)


def free_id(db: sqlite3.Connection) -> str:
    """Return a fresh id, whose user id no VM has."""
    taken = _uids(db)
    while True:
        vm_id = new_vm_id()
        if vm_uid(vm_id) not in taken:
            return vm_id


def _uids(db: sqlite3.Connection) -> set[int]:
    return {vm_uid(vm_id) for (vm_id,) in db.execute("SELECT id FROM vms") if is_vm_id(vm_id)}


def history(db: sqlite3.Connection, seq: int) -> list[Transition]:
    """Return the changes of a VM's state that are kept and can be read, oldest first."""
    found = db.execute("SELECT * FROM transitions WHERE vm = ? ORDER BY n", (seq,))
    return [step for step in map(to_transition, found) if step]


def insert(db: sqlite3.Connection, vm_id: str, name: str, spec: Spec, now: int) -> Vm:
    """Add a VM, made `now`, with the next free vsock context id."""
    db.execute(
        "INSERT INTO vms (id, name, spec, state, reason, created, changed, goal, boot, pid, cid)"
        " SELECT ?, ?, ?, ?, '', ?, ?, ?, '', 0, max(coalesce(max(cid) + 1, 0), ?) FROM vms",
        (vm_id, name, to_text(spec), State.CREATED, now, now, Goal.STOP, _FIRST_CID),
    )
    changes.record(db, vm_id)
    return known(db, vm_id)


def move(db: sqlite3.Connection, vm: Vm, event: Event, reason: str, now: int) -> Vm:
    """Bring a VM to the state that `event` leads to, and keep that in its history.

    Raises FailedPrecondition (VM_STATE).
    """
    new = after(vm.state, event, vm.name)
    db.execute(
        "UPDATE vms SET state = ?, reason = ?, changed = ? WHERE seq = ?",
        (new, reason, now, vm.seq),
    )
    db.execute(
        "INSERT INTO transitions (vm, old, new, reason, time) VALUES (?, ?, ?, ?, ?)",
        (vm.seq, vm.state, new, reason, now),
    )
    db.execute(
        "DELETE FROM transitions WHERE vm = ?1 AND n <="
        " (SELECT n FROM transitions WHERE vm = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)",
        (vm.seq, HISTORY),
    )
    return _changed(db, vm, state=new, reason=reason, changed=now)


def set_goal(db: sqlite3.Connection, vm: Vm, goal: Goal) -> Vm:
    """Record what is wanted of a VM."""
    db.execute("UPDATE vms SET goal = ? WHERE seq = ?", (goal, vm.seq))
    return _changed(db, vm, goal=goal)


def set_reason(db: sqlite3.Connection, vm: Vm, reason: str) -> Vm:
    """Record another reason for the state that a VM stays in."""
    db.execute("UPDATE vms SET reason = ? WHERE seq = ?", (reason, vm.seq))
    return _changed(db, vm, reason=reason)


def set_spec(db: sqlite3.Connection, vm: Vm, spec: Spec) -> Vm:
    """Record another spec of a VM."""
    db.execute(
        "UPDATE vms SET spec = ?, revision = revision + 1 WHERE seq = ?",
        (to_text(spec), vm.seq),
    )
    return _changed(db, vm, spec=spec, revision=vm.revision + 1)


def set_restarts(db: sqlite3.Connection, vm: Vm, restarts: Restarts) -> Vm:
    """Record how far the restart policy of a VM has got."""
    db.execute("UPDATE vms SET restarts = ? WHERE seq = ?", (to_text(restarts), vm.seq))
    return _changed(db, vm, restarts=restarts)


def set_lifetime(db: sqlite3.Connection, vm: Vm, lifetime: Lifetime) -> Vm:
    """Record how far the time to live of a VM has got."""
    db.execute("UPDATE vms SET lifetime = ? WHERE seq = ?", (to_text(lifetime), vm.seq))
    return _changed(db, vm, lifetime=lifetime)


def set_exit(db: sqlite3.Connection, vm: Vm, end: Exit, now: int) -> Vm:
    """Record how the last process of a VM ended, which was noticed `now`."""
    end = replace(end, time=end.time or now)
    db.execute("UPDATE vms SET last_exit = ? WHERE seq = ?", (to_text(end), vm.seq))
    return _changed(db, vm, last_exit=end)


def set_boot(db: sqlite3.Connection, vm: Vm, boot: Boot) -> Vm:
    """Record the process that a VM has now."""
    db.execute("UPDATE vms SET boot = ?, pid = ? WHERE seq = ?", (boot.boot, boot.pid, vm.seq))
    return _changed(db, vm, boot=boot.boot, pid=boot.pid)


def set_rest(db: sqlite3.Connection, vm: Vm) -> Vm:
    """Record that a VM has no process."""
    db.execute("UPDATE vms SET pid = 0 WHERE seq = ?", (vm.seq,))
    return _changed(db, vm, pid=0)


def delete(db: sqlite3.Connection, vm_id: str) -> Gone:
    """Remove a VM and its history."""
    db.execute("DELETE FROM vms WHERE id = ?", (vm_id,))
    return Gone(vm_id, changes.record(db, vm_id))


def firecracker_version(db: sqlite3.Connection) -> str:
    """Return the version of the last Firecracker that booted, or ""."""
    return _fact(db, _VERSION)


def set_firecracker_version(db: sqlite3.Connection, version: str) -> None:
    """Record the version of a Firecracker that booted."""
    _set_fact(db, _VERSION, version)


def host_boot(db: sqlite3.Connection) -> str:
    """Return the boot of the host that vmm was last started in, or ""."""
    return _fact(db, _HOST_BOOT)


def set_host_boot(db: sqlite3.Connection, boot: str) -> None:
    """Record the boot of the host that vmm was started in."""
    _set_fact(db, _HOST_BOOT, boot)


def beat(db: sqlite3.Connection, now: int) -> None:
    """Record that the database was written at `now`."""
    _set_fact(db, _BEAT, str(now))


def last_beat(db: sqlite3.Connection) -> str:
    """Return when the database was last written for the sake of it, or ""."""
    return _fact(db, _BEAT)


def _changed(db: sqlite3.Connection, vm: Vm, **values: Any) -> Vm:  # noqa: ANN401  # any fields
    """Return `vm` with the values that were stored, and with the revision of that."""
    return replace(vm, **values, change=changes.record(db, vm.id))


def _fact(db: sqlite3.Connection, key: str) -> str:
    row = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return str(row["value"]) if row else ""


def _set_fact(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", (key, value))
