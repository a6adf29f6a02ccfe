"""What may befall vmm: time that calls take, failures at its ports, and copies of its host.

A copy of the host at some instant is what a kill -9 at that instant leaves: the database as it was
committed, and the world. So one run gives as many kills as it has points.
"""

import asyncio
import dataclasses
import errno
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import vmm_life
from vmm_driver import World

from nexus_rpc.database import Database
from nexus_rpc.errors import FailedPrecondition, ResourceExhausted, Unavailable
from nexus_rpc.reserve import Reserve

FAILURES = {
    "systemd": lambda: Unavailable("SYSTEMD_UNREACHABLE", "systemd does not answer"),
    "unit": lambda: FailedPrecondition("UNIT_FAILED", "systemd refuses"),
    "device": lambda: OSError(errno.EIO, "Input/output error"),
}
"""What a call of the driver may fail with, before or after it did what it should."""


def no_room():
    """Return the failure of a write of the database on a full disk."""
    return ResourceExhausted("DISK_FULL", "no room on the host")


def read_only():
    """Return the failure of a write of the database on a disk that takes none any more."""
    return ResourceExhausted("DISK_UNWRITABLE", "the disk is read-only")


class Fates(vmm_life.Chaos):
    """Lets calls of the driver take their time, and some fail.

    `failing` gives the failure of the next touch, by its name, or None. `passed` is called with the
    name of each point, between any two steps.
    """

    def __init__(self, random, failing=lambda name: None):
        super().__init__()
        self.random = random
        self.failing = failing
        self.passed = lambda name: None

    def delay(self):
        """Return seconds: most calls are quick, a few are not."""
        return self.random.choice((0.0, 0.0, 0.0, 0.001, 0.01, 0.2))

    def point(self, name=""):
        self.count += 1
        self.passed(name)

    def around(self, port):
        # The database's jobs are touches of their own.
        return port if isinstance(port, vmm_life.Store) else _Fated(port, self)

    async def touch(self, name):
        await asyncio.sleep(self.delay())
        self.point(name)
        if failure := self.failing(f"driver: {name}"):
            raise failure


class _Fated:
    def __init__(self, port, fates):
        self._port = port
        self._fates = fates

    def __getattr__(self, name):
        method = getattr(self._port, name)

        async def call(*args, **kwargs):
            await self._fates.touch(f"before {name}")
            result = await method(*args, **kwargs)
            await self._fates.touch(f"after {name}")
            return result

        return method if name == "wait" else call


class Processes(dict):
    """Processes by VM. Remembers which boots there have ever been."""

    def __init__(self, processes=(), boots=()):
        super().__init__(processes)
        self.boots = dict(boots)

    def __setitem__(self, vm_id, process):
        assert vm_id not in self, f"a second process for {vm_id}"
        self.boots[process.boot] = vm_id
        super().__setitem__(vm_id, process)


class Host(vmm_life.Host):
    """A host that can be copied. For a `VirtualLoop`: no thread of its database runs."""

    def __init__(self, database):
        super().__init__(database)
        self.world = World(processes=Processes())

    @property
    def connection(self):
        return self.database._connection

    @classmethod
    def new(cls):
        return cls(_database(None))

    def copy(self):
        """Return this host as it is at this instant."""
        other = type(self)(_database(self.connection.serialize()))
        other.world = _copied(self.world)
        other.boot, other.room = self.boot, self.room
        return other

    def lose_power(self):
        """Let the host boot anew: what was not on a disk is gone."""
        self.boot += "+"
        self.world.processes = Processes(boots=self.world.processes.boots)
        self.world.runs.clear()
        self.world.ends.clear()

    def close(self):
        self.connection.close()


def _database(content):
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if content is not None:
        connection.deserialize(content)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    if content is None:
        for script in vmm_life.rows.MIGRATIONS:
            connection.executescript(script)
    nothing = Reserve(Path("reserve"), 0)
    return Database(connection, ThreadPoolExecutor(max_workers=1), nothing, "replace")


def _copied(world):
    values = {field.name: getattr(world, field.name) for field in dataclasses.fields(World)}
    for name, value in values.items():
        if isinstance(value, dict | set):
            values[name] = value.copy()
    processes = {
        vm_id: dataclasses.replace(process, ended=asyncio.Event())
        for vm_id, process in world.processes.items()
    }
    return World(**values | {"processes": Processes(processes, world.processes.boots)})
