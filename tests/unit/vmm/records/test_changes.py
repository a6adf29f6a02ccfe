"""Revisions: one for each change, in its transaction, over restarts, and bounded."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import vmm_guest
from vmm_guest import NETWORK
from vmm_life import Crash, Host, living

from nexus_rpc.database import Database
from nexus_vmm.records import changes, rows
from nexus_vmm.records.watch import Hub, Missed, Synced
from nexus_vmm.states import Event

SPEC = """{"vcpu_count": 1, "memory_mib": 128, "image": "debian", "kernel": "default",
    "disk_mib": 16, "network": null, "balloon": false}"""
BEFORE = rows.MIGRATIONS.index(changes.SCHEMA)


@pytest.fixture
def db():
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.row_factory = sqlite3.Row
    for script in rows.MIGRATIONS:
        db.executescript(script)
    yield db
    db.close()


def insert(db, number):
    vm_id = f"{number:013}"
    return rows.insert(db, vm_id, f"vm-{number}", vmm_guest.spec(), 1)


def test_every_change_of_a_vm_has_a_revision_of_its_own(db):
    vm = insert(db, 1)
    revisions = [vm.change]
    for change in (
        lambda: rows.set_goal(db, vm, "run"),
        lambda: rows.move(db, vm, Event.START, "because", 2),
        lambda: rows.set_spec(db, vm, vmm_guest.spec(vcpu_count=2)),
        lambda: rows.set_restarts(db, vm, vm.restarts),
        lambda: rows.set_lifetime(db, vm, vm.lifetime),
        lambda: rows.set_rest(db, vm),
    ):
        told = change()
        assert rows.known(db, vm.id).change == told.change
        revisions.append(told.change)
    revisions.append(rows.delete(db, vm.id).change)
    assert revisions == sorted(set(revisions))
    assert changes.read(db).last == revisions[-1]


def test_the_log_has_one_entry_for_each_vm_there_was(db):
    kept, gone = insert(db, 1), insert(db, 2)
    for _ in range(5):
        kept = rows.set_goal(db, kept, "stop")
    deleted = rows.delete(db, gone.id)
    assert changes.read(db).gone == (deleted,)
    assert db.execute("SELECT count(*) FROM changes").fetchone()[0] == 2


def test_revisions_begin_with_the_time_at_which_the_database_was_made(db):
    log = changes.read(db)
    assert abs(log.last / 1000 - time.time()) < 60
    assert (log.forgotten, log.gone) == (log.last, ())
    assert insert(db, 1).change == log.last + 1


def test_a_revision_is_taken_back_with_its_change(db):
    last = changes.read(db).last
    db.execute("BEGIN")
    insert(db, 1)
    db.execute("ROLLBACK")
    assert changes.read(db).last == last


def test_the_log_is_cut_and_says_what_it_forgot(db, monkeypatch):
    monkeypatch.setattr(changes, "KEPT", 50)
    monkeypatch.setattr(changes, "_EACH", 10)
    kept = insert(db, 0)
    deleted = []
    for number in range(1, 200):
        insert(db, number)
        deleted.append(rows.delete(db, f"{number:013}"))
    log = changes.read(db)
    assert 50 <= db.execute("SELECT count(*) FROM changes").fetchone()[0] <= 60
    assert list(log.gone) == [one for one in deleted if one.change > log.forgotten]
    assert rows.known(db, kept.id).change <= log.forgotten


def test_vms_of_an_earlier_release_get_revisions_in_order_of_their_creation():
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.row_factory = sqlite3.Row
    for script in rows.MIGRATIONS[:BEFORE]:
        db.executescript(script)
    for number in (2, 1):
        db.execute(
            "INSERT INTO vms (id, name, spec, state, reason, created, changed, goal, boot, pid,"
            " cid) VALUES (?, ?, ?, 'created', '', 1, 1, 'stop', '', 0, ?)",
            (f"{number:013}", f"vm-{number}", SPEC, number + 3),
        )
    for script in rows.MIGRATIONS[BEFORE:]:
        db.executescript(script)
    log, vms = changes.read(db), rows.every(db)
    assert [vm.change - log.forgotten for vm in vms] == [1, 2]
    assert [vm.name for vm in vms] == ["vm-2", "vm-1"]
    db.close()


@living
async def test_what_is_told_comes_in_the_order_of_its_revisions(vmm, world):
    watch = vmm.hub.watch()
    await anext(watch)

    async def live(name):
        await vmm.create(name)
        await vmm.start(name)
        await vmm.stop(name)
        await vmm.delete(name)

    await asyncio.gather(*(live(f"vm-{number}") for number in range(16)))
    revisions = []
    while not revisions or revisions[-1] < vmm.hub._last:
        revisions.append((await asyncio.wait_for(anext(watch), 5)).revision)
    assert revisions == sorted(set(revisions))
    await watch.aclose()


async def test_a_watcher_carries_on_over_a_restart_of_vmm(host):
    last = 0

    async def first(vmm):
        nonlocal last
        await vmm.create("stays")
        await vmm.create("goes")
        async for revision, what in vmm.hub.watch():
            if isinstance(what, Synced):
                last = revision
                break
        await vmm.create("new")
        await vmm.delete("goes")

    async def second(vmm):
        told = []
        async for _, what in vmm.hub.watch(last):
            if isinstance(what, Synced):
                break
            told.append(what)
        assert isinstance(told[1], changes.Gone)
        assert (len(told), told[0].name) == (2, "new")

    await host.live(first)
    await host.live(second)


async def caught_up(vmm, revision):
    """Return what a watcher is told that carries on after a revision."""
    told = []
    async for _, what in vmm.hub.watch(revision):
        if isinstance(what, Synced):
            return told
        told.append(what)
    raise AssertionError


@pytest.mark.parametrize("lives", [1, 2])
@pytest.mark.parametrize("more", [0, 1, 100])
async def test_a_watcher_notices_that_a_copy_of_the_database_was_put_back(tmp_path, lives, more):
    """Whatever vmm had told since the copy was made, and whatever has happened to the copy."""
    heard = []

    async def life(vmm):
        if not heard:
            await vmm.create()
            with contextlib.closing(sqlite3.connect(tmp_path / "vmm.db")) as source:
                source.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
            heard.append(vmm.hub._last)
        await vmm.create(f"lost-{len(heard)}")
        heard.append(vmm.hub._last)

    async def again(vmm):
        for number in range(more):
            await vmm.update(tags=(("n", str(number)),), fields=("tags",))
        known, *lost = [await caught_up(vmm, revision) for revision in heard]
        assert known == (vmm.hub.present() if more else [])
        assert all(isinstance(told[0], Missed) and told[1:] == vmm.hub.present() for told in lost)

    async with opened(tmp_path / "vmm.db") as host:
        for _ in range(lives):
            await host.live(life)
    async with opened(tmp_path / "copy.db") as host:
        assert await host.live(again) is not Crash


@contextlib.asynccontextmanager
async def opened(path):
    database = await rows.open_database(path)
    yield Host(database)
    await database.close()


def test_the_gaps_are_bounded(db, monkeypatch):
    monkeypatch.setattr(changes, "LIVES", 5)
    told = []
    for _ in range(20):
        changes.begin(db)
        told.append(changes.read(db).last)
    log = changes.read(db)
    assert [before for _, before in log.gaps] == told[-5:]
    assert log.forgotten == told[-6]


@pytest.mark.parametrize("value", ["", "x", "-1", "9" * 18])
def test_a_log_that_may_have_forgotten_anything_says_so(db, value):
    insert(db, 1)
    db.execute("UPDATE facts SET value = ? WHERE key = 'forgotten'", (value,))
    log = changes.read(db)
    assert log.forgotten == log.last


CALLS = {
    "update": lambda vmm: vmm.update(("tags",), tags=(("team", "blue"),)),
    "set_network": lambda vmm: vmm.set_network(replace(NETWORK, ipv4="172.16.0.9/12")),
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_change_whose_caller_hung_up_is_told(host, call, monkeypatch):
    begun, gate = threading.Event(), threading.Event()
    write = host.database.write

    async def slow(work, **options):
        def held(db):
            result = work(db)
            begun.set()
            gate.wait(5)
            return result

        return await write(held, **options)

    async def life(vmm):
        await vmm.create(network=NETWORK)
        monkeypatch.setattr(host.database, "write", slow)
        calling = asyncio.create_task(CALLS[call](vmm))
        await asyncio.to_thread(begun.wait, 5)
        calling.cancel()
        await asyncio.wait({calling})
        watch = vmm.hub.watch(vmm.hub._last)
        gate.set()
        async for _, what in watch:
            if not isinstance(what, Synced):
                break
        await watch.aclose()
        assert await vmm.store.all() == vmm.hub.present() == [what]

    async with asyncio.timeout(10):
        await host.live(life)


async def test_a_database_that_was_lost_is_missed(tmp_path):
    old = await Database.open(Path(":memory:"), rows.MIGRATIONS)
    known = (await old.read(changes.read)).last
    await old.close()
    hub = Hub()
    hub.load([], changes.Log(known + 1, known + 1, ()))
    watch = hub.watch(known)
    assert type((await anext(watch)).what).__name__ == "Missed"
    await watch.aclose()
