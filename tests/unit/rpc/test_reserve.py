"""Room that is kept back on a disk."""

import os

import pytest

from nexus_rpc.database import Database
from nexus_rpc.errors import ResourceExhausted
from nexus_rpc.reserve import Reserve


def test_it_takes_room_until_it_is_dropped(tmp_path):
    reserve = Reserve(tmp_path / "x.reserve", 100_000)
    for _ in range(2):
        reserve.fill()
        assert (tmp_path / "x.reserve").stat().st_blocks * 512 >= 100_000
    assert [reserve.drop(), reserve.drop()] == [True, False]
    assert not list(tmp_path.iterdir())


def test_without_room_there_is_none(tmp_path, monkeypatch):
    def full(*_):
        raise OSError

    monkeypatch.setattr(os, "posix_fallocate", full)
    reserve = Reserve(tmp_path / "x.reserve", 100_000)
    reserve.fill()
    assert not reserve.drop()
    assert not list(tmp_path.iterdir())


def test_of_no_size_it_is_nothing(tmp_path):
    reserve = Reserve(tmp_path / "x.reserve", 0)
    reserve.fill()
    assert not reserve.drop()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("urgent", [False, True])
async def test_what_is_urgent_may_use_it(tmp_path, urgent, monkeypatch):
    database = await Database.open(tmp_path / "x.db", ["CREATE TABLE t (v)"], reserve=100_000)
    held = tmp_path / "x.reserve"
    assert held.exists()
    drop = Reserve.drop

    async def limit(pages):
        await database.read(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    def make_room(reserve):
        database._connection.execute("PRAGMA max_page_count = 1000")
        return drop(reserve)

    def fill(db):
        db.execute("INSERT INTO t VALUES (zeroblob(1000000))")

    monkeypatch.setattr(Reserve, "drop", make_room)
    await limit(2)
    if urgent:
        await database.write(fill, urgent=True)
    else:
        with pytest.raises(ResourceExhausted):
            await database.write(fill)
    # It is kept back anew as soon as there is room.
    assert held.exists()
    await database.close()
