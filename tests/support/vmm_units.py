"""A stand-in for systemd's units: their states and processes, for the fakes to show."""

import asyncio
import contextlib
import itertools
import os
import secrets
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import vmm_firecracker

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_rpc.ids import vm_uid
from nexus_vmm.machine.units import Unit

VERSION = "252 (252.39-1~deb12u1)"

_pids = itertools.count(1000)


class Idle:
    """A process that does nothing until it is ended."""

    def __init__(self):
        self.pid = next(_pids)
        self.ended = asyncio.get_running_loop().create_future()

    def end(self, code):
        if not self.ended.done():
            self.ended.set_result(code)

    async def closed(self):
        pass


async def idle(vm_id):
    """Launch a process that does nothing."""
    return Idle()


def make_run(run_dir, vm_id):
    """Make the directory of a run with those of its sockets, as systemd does."""
    run = run_dir / vm_id
    for name in ("api", "vsock"):
        (run / name).mkdir(parents=True)
    return run


def machines(run_dir, *, obeys=True):
    """Return a launcher of stand-in Firecrackers in this loop."""

    async def launch(vm_id):
        machine = vmm_firecracker.Machine(make_run(run_dir, vm_id), vm_id, obeys=obeys)
        machine.pid = next(_pids)
        await machine.serve()
        return machine

    return launch


class Child:
    """A real process in the directory `run`. `ended` has its exit code, or -N for signal N."""

    def __init__(self, process, run):
        self._process = process
        self._run = run
        self.pid = process.pid
        self.ended = asyncio.ensure_future(process.wait())

    def end(self, code):
        with contextlib.suppress(ProcessLookupError):  # it has ended, and is told of soon
            os.kill(self.pid, -code if code < 0 else signal.SIGTERM)

    async def closed(self):
        shutil.rmtree(self._run)


def jailed(run_dir):
    """Return a launcher of stand-in Firecrackers as processes, each with its VM's own user."""
    return processes(run_dir, uid=vm_uid)


def processes(run_dir, *, obeys=True, uid=lambda vm_id: os.getuid()):
    """Return a launcher of stand-in Firecrackers as processes."""

    async def launch(vm_id):
        program = Path(vmm_firecracker.__file__)
        options = [] if obeys else ["--disobeys"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            program,
            make_run(run_dir, vm_id),
            "--id",
            vm_id,
            "--uid",
            str(uid(vm_id)),
            *options,
        )
        return Child(process, run_dir / vm_id)

    return launch


async def fails(vm_id):
    """Launch a process that ends with code 7 before it does anything."""
    process = Idle()
    process.end(7)
    return process


class Model:
    """The units of all VMs. `changed` is called with the id of each that changes."""

    def __init__(self, launch):
        self.launch = launch
        self.units = {}
        self.processes = {}
        self.changed = []
        self.stop_signal = signal.SIGTERM
        self._followers = set()

    def describe(self, vm_id):
        return self.units.get(vm_id, Unit("dead"))

    async def start(self, vm_id):
        if not self.describe(vm_id).gone:
            return
        process = await self.launch(vm_id)
        self.processes[vm_id] = process
        self._set(vm_id, Unit("running", secrets.token_hex(16), process.pid))
        follower = asyncio.create_task(self._follow(vm_id, process))
        self._followers.add(follower)
        follower.add_done_callback(self._followers.discard)
        await asyncio.sleep(0)

    async def stop(self, vm_id):
        if not self.describe(vm_id).gone:
            self.processes[vm_id].end(-signal.SIGTERM)
            await self.gone(vm_id)
        unit = self.describe(vm_id)
        if unit.state == "exited":
            # systemd forgets a unit that is stopped at once, and tells of its end in signals only.
            self._set(vm_id, replace(unit, state="dead"))
            del self.units[vm_id]

    async def kill(self, vm_id, number):
        if self.describe(vm_id).gone:
            raise FailedPrecondition("UNIT_FAILED", "no such unit", error="NoSuchUnit")
        self.processes[vm_id].end(-number)

    def forget(self, vm_id):
        if self.describe(vm_id).state == "failed":
            del self.units[vm_id]

    async def gone(self, vm_id):
        while not self.describe(vm_id).gone:
            event = asyncio.Event()
            self.changed.append(lambda _, event=event: event.set())
            await event.wait()

    async def close(self):
        for vm_id in list(self.processes):
            await self.stop(vm_id)
        await asyncio.gather(*self._followers)

    async def _follow(self, vm_id, process):
        code = await process.ended
        await process.closed()
        unit = self.units[vm_id]
        clean = code in (0, -signal.SIGTERM)
        self._set(
            vm_id,
            replace(
                unit,
                state="exited" if clean else "failed",
                pid=0,
                result="success" if clean else "exit-code" if code > 0 else "signal",
                exit_code=1 if code >= 0 else 2,
                exit_status=abs(code),
                exit_time=time.time_ns() // 1000,
            ),
        )

    def _set(self, vm_id, unit):
        self.units[vm_id] = unit
        for tell in list(self.changed):
            tell(vm_id)


class FakeUnits:
    """Implements `nexus_vmm.machine.units.Units` with a model in this loop."""

    def __init__(self, model):
        self.model = model
        self.down = False
        self.refuses = ""

    async def start(self, vm_id):
        self._check()
        if self.refuses:
            raise FailedPrecondition("UNIT_FAILED", self.refuses)
        await self.model.start(vm_id)
        return self.model.describe(vm_id)

    async def stop(self, vm_id):
        self._check()
        await self.model.stop(vm_id)
        self.model.forget(vm_id)

    async def kill(self, vm_id, number):
        self._check()
        await self.model.kill(vm_id, number)

    async def describe(self, vm_id):
        self._check()
        await asyncio.sleep(0)
        return self.model.describe(vm_id)

    async def wait(self, vm_id, invocation=""):
        event = asyncio.Event()
        seen = []

        def changed(changed_id):
            if changed_id == vm_id:
                seen.append(self.model.describe(vm_id))
                event.set()

        self.model.changed.append(changed)
        try:
            while not (unit := seen[-1] if seen else self.model.describe(vm_id)).gone and (
                not invocation or unit.invocation == invocation
            ):
                event.clear()
                await event.wait()
            return unit
        finally:
            self.model.changed.remove(changed)

    async def loaded(self):
        self._check()
        return set(self.model.units)

    async def version(self):
        self._check()
        return VERSION

    def _check(self):
        if self.down:
            raise Unavailable("SYSTEMD_UNREACHABLE", "systemd does not answer")
