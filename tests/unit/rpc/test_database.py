import asyncio
import sqlite3

import pytest

from nexus_rpc.database import Database, DatabaseError
from nexus_rpc.errors import ResourceExhausted

FIRST = "CREATE TABLE t (v INTEGER)"


def _insert(value):
    return lambda connection: connection.execute("INSERT INTO t VALUES (?)", (value,)).lastrowid


def _values(connection):
    return [row["v"] for row in connection.execute("SELECT v FROM t ORDER BY v")]


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "x.db", [FIRST])
    yield database
    await database.close()


async def test_a_write_is_all_or_nothing(database):
    def broken(connection):
        _insert(1)(connection)
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        await database.write(broken)
    await database.write(_insert(2))

    assert await database.read(_values) == [2]


async def test_many_writers_at_once_take_turns(database):
    await asyncio.gather(*(database.write(_insert(n)) for n in range(100)))
    assert await database.read(_values) == list(range(100))


async def test_a_write_outlives_the_cancellation_of_its_caller(database):
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def slow(connection):
        loop.call_soon_threadsafe(begun.set)
        _insert(7)(connection)

    task = asyncio.create_task(database.write(slow))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])

    assert await database.read(_values) == [7]


async def test_migrations_go_forward_and_keep_the_data(tmp_path):
    path = tmp_path / "x.db"
    database = await Database.open(path, [FIRST])
    await database.write(_insert(1))
    await database.close()

    database = await Database.open(path, [FIRST, "ALTER TABLE t ADD COLUMN w INTEGER DEFAULT 5"])
    row = await database.read(lambda c: tuple(c.execute("SELECT v, w FROM t").fetchone()))
    await database.close()

    assert row == (1, 5)


async def test_a_failed_migration_changes_nothing(tmp_path):
    path = tmp_path / "x.db"
    with pytest.raises(DatabaseError, match="cannot be used"):
        await Database.open(path, [FIRST, "CREATE TABLE u (v INTEGER); nonsense"])

    database = await Database.open(path, [FIRST])
    tables = await database.read(
        lambda c: [row[0] for row in c.execute("SELECT name FROM sqlite_master")]
    )
    await database.close()
    assert tables == ["t"]


async def test_a_newer_database_is_left_alone(tmp_path):
    path = tmp_path / "x.db"
    await (await Database.open(path, [FIRST, "CREATE TABLE u (v INTEGER)"])).close()
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="newer Nexus"):
        await Database.open(path, [FIRST])
    assert path.read_bytes() == before


async def test_a_damaged_database_is_left_alone(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(DatabaseError, match="put back a copy"):
        await Database.open(path, [FIRST])
    assert path.read_bytes() == b"this is no database" * 100


async def test_what_was_written_is_in_the_file_at_once(database, tmp_path):
    await database.write(_insert(3))
    other = sqlite3.connect(tmp_path / "x.db")
    assert other.execute("SELECT v FROM t").fetchall() == [(3,)]
    other.close()


async def test_a_file_that_cannot_be_opened_is_not_said_to_be_damaged(tmp_path):
    (tmp_path / "x.db").mkdir()
    with pytest.raises(DatabaseError, match="disk's room"):
        await Database.open(tmp_path / "x.db", [FIRST])


async def test_a_full_disk_has_a_name_and_once_there_is_room_all_goes_on(database):
    def fill(connection):
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")

    await database.read(lambda c: c.execute("PRAGMA max_page_count = 4").fetchone())
    with pytest.raises(ResourceExhausted, match=r"x\.db") as caught:
        await database.write(fill)
    assert caught.value.reason == "DISK_FULL"

    await database.read(lambda c: c.execute("PRAGMA max_page_count = 1000").fetchone())
    await database.write(_insert(1))
    assert await database.read(_values) == [1]


async def test_a_disk_that_takes_no_write_has_a_name_and_reads_go_on(database):
    await database.write(_insert(1))
    await database.read(lambda c: c.execute("PRAGMA query_only = ON").fetchone())
    with pytest.raises(ResourceExhausted, match=r"x\.db cannot be written") as caught:
        await database.write(_insert(2))
    assert caught.value.reason == "DISK_UNWRITABLE"
    assert await database.read(_values) == [1]

    await database.read(lambda c: c.execute("PRAGMA query_only = OFF").fetchone())
    await database.write(_insert(2))


async def test_a_commit_that_fails_leaves_no_transaction_open(database):
    def dangling(connection):
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("CREATE TABLE u (v INTEGER REFERENCES w (v))")
        connection.execute("CREATE TABLE w (v INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO u VALUES (1)")

    with pytest.raises(sqlite3.IntegrityError):
        await database.write(dangling)
    await database.write(_insert(1))
    assert await database.read(_values) == [1]


@pytest.mark.parametrize(("errors", "read"), [("strict", None), ("replace", ["whole", "\ufffdx"])])
async def test_a_text_that_is_no_utf_8_is_read_where_that_is_asked_for(tmp_path, errors, read):
    database = await Database.open(tmp_path / "x.db", ["CREATE TABLE t (a TEXT)"], errors=errors)

    def rows(db):
        return [row["a"] for row in db.execute("SELECT a FROM t")]

    def add(db):
        db.execute("INSERT INTO t VALUES ('whole'), (CAST(x'ff78' AS TEXT))")

    await database.write(add)
    if read is None:
        with pytest.raises(sqlite3.OperationalError, match="UTF-8"):
            await database.read(rows)
    else:
        assert await database.read(rows) == read
    await database.close()
