"""A driver with nothing behind it but a world of its own, which outlives vmm as a host does."""

import asyncio
import itertools
import signal
from dataclasses import dataclass, field

from nexus_rpc.errors import FailedPrecondition, NotFound, Unavailable
from nexus_vmm.vm import TAKEN, Boot, Exit

_boots = itertools.count(1)

SHUTDOWN = Exit("shutdown", "the guest shut down", code=0)


def ended_by(number):
    """Return the end of a process by a signal."""
    return Exit("signal", f"Firecracker was ended by {number.name}", signal=number)


@dataclass
class Process:
    boot: str
    pid: int
    booted: bool = False
    paused: bool = False
    balloon: int | None = None
    obeys: bool = True
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class World:
    """What exists on the host: disks, directories of runs, processes, and how others ended.

    `obeys`: guests shut down on Ctrl-Alt-Del. `heeds`: processes end on SIGTERM. `fault`, `halts`
    and `asks` are what Firecracker refuses a boot, a pause and Ctrl-Alt-Del with.
    """

    images: set = field(default_factory=lambda: {"debian"})
    disks: dict = field(default_factory=dict)
    written: set = field(default_factory=set)
    runs: set = field(default_factory=set)
    processes: dict = field(default_factory=dict)
    ends: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    fault: str = ""
    halts: str = ""
    asks: str = ""
    fails: int = 0
    obeys: bool = True
    heeds: bool = True
    traffic: dict = field(default_factory=dict)

    def end(self, vm_id, end=None):
        """End a process by itself."""
        process = self.processes.pop(vm_id)
        self.ends[vm_id] = end or ended_by(signal.SIGKILL)
        process.ended.set()

    def restart(self, vm_id):
        """Be someone else who has systemd restart the VM's unit: the new process has no machine."""
        self.end(vm_id)
        del self.ends[vm_id]
        number = next(_boots)
        self.processes[vm_id] = Process(f"boot-{number}", number)


class FakeDriver:
    """Implements `nexus_vmm.driver.Driver`. `point` is called between the steps of each call."""

    def __init__(self, world, point=lambda name: None):
        self.world = world
        self.point = point

    async def create(self, vm_id, spec):
        await asyncio.sleep(0)
        self._check_image(spec)
        self.world.disks.setdefault(vm_id, "half")
        self.point("half a disk")
        self.world.disks[vm_id] = spec.disk_mib

    async def start(self, vm):
        await self.kill(vm.id)
        self._check_image(vm.spec)
        self.world.runs.add(vm.id)
        self.point("a directory")
        self.world.disks[vm.id] = max(self.world.disks[vm.id], vm.spec.disk_mib)
        self.point("a larger disk")
        if self.world.fails:
            raise FailedPrecondition("BOOT_FAILED", f"exit code {self.world.fails}")
        number = next(_boots)
        process = Process(f"boot-{number}", number, obeys=self.world.obeys)
        process.balloon = 0 if vm.spec.balloon else None
        self.world.processes[vm.id] = process
        await asyncio.sleep(0)
        self.point("a process")
        if self.world.fault:
            raise FailedPrecondition("BOOT_FAILED", self.world.fault)
        process.booted = True
        self.world.written.add(vm.id)
        self.point("a machine")
        return Boot(process.boot, process.pid, "1.12.1")

    async def ask(self, vm_id):
        await asyncio.sleep(0)
        process = self._answering(vm_id)
        if self.world.asks:
            raise Unavailable("FIRECRACKER_SILENT", self.world.asks)
        if process.obeys and not process.paused:
            self.world.end(vm_id, SHUTDOWN)
        self.point("asked")

    async def signal(self, vm_id, number):
        await asyncio.sleep(0)
        heeds = self.world.heeds or number is signal.SIGKILL
        if vm_id in self.world.processes and heeds:
            self.world.end(vm_id, ended_by(number))
        self.point("signalled")

    async def pause(self, vm_id):
        await self._halt(vm_id, True)

    async def resume(self, vm_id):
        await self._halt(vm_id, False)

    async def _halt(self, vm_id, paused):
        await asyncio.sleep(0)
        process = self._answering(vm_id)
        if self.world.halts:
            raise FailedPrecondition("PAUSE_REFUSED", self.world.halts)
        process.paused = paused
        self.point("halted")

    async def set_balloon(self, vm_id, amount_mib):
        await asyncio.sleep(0)
        process = self._answering(vm_id)
        if process.balloon is None:
            raise FailedPrecondition("BALLOON_REFUSED", "Firecracker refused: no balloon")
        process.balloon = amount_mib
        self.point("a balloon")

    async def kill(self, vm_id):
        await asyncio.sleep(0)
        if vm_id in self.world.processes:
            self.world.end(vm_id)
            self.point("killed")
        self.world.ends.pop(vm_id, None)
        self.world.runs.discard(vm_id)

    async def wait(self, vm_id, boot=""):
        process = self.world.processes.get(vm_id)
        if process and boot in ("", process.boot):
            await process.ended.wait()
            process = self.world.processes.get(vm_id)
        taken = process and boot not in ("", process.boot)
        return TAKEN if taken else self._end(vm_id)

    async def describe(self, vm_id):
        await asyncio.sleep(0)
        process = self.world.processes.get(vm_id)
        return Boot(process.boot, process.pid, "") if process else self._end(vm_id)

    async def traffic(self, vm):
        await asyncio.sleep(0)
        return self.world.traffic.get(vm.spec.network.tap, 0) if vm.spec.network else 0

    async def adopt(self, vm_id):
        await asyncio.sleep(0)
        process = self.world.processes.get(vm_id)
        if process is None or not process.booted:
            return None
        return Boot(process.boot, process.pid, "1.12.1")

    async def last_words(self, vm_id):
        await asyncio.sleep(0)
        return self.world.words.get(vm_id, "")

    async def delete(self, vm_id):
        await asyncio.sleep(0)
        if vm_id in self.world.disks:
            self.world.disks[vm_id] = "half"
            self.point("half a deletion")
            del self.world.disks[vm_id]
        self.world.written.discard(vm_id)

    async def discard(self, vm_id):
        if vm_id in self.world.written:
            return False
        await self.delete(vm_id)
        return True

    async def inventory(self):
        await asyncio.sleep(0)
        world = self.world
        return set(world.disks) | world.runs | set(world.processes) | set(world.ends)

    def _answering(self, vm_id):
        if vm_id not in self.world.processes:
            raise Unavailable("FIRECRACKER_SILENT", "Firecracker does not answer")
        return self.world.processes[vm_id]

    def _end(self, vm_id):
        return self.world.ends.get(vm_id, Exit("unknown", "the process ended"))

    def _check_image(self, spec):
        if spec.image not in self.world.images:
            raise NotFound("IMAGE_NOT_FOUND", f"there is no image {spec.image!r}")
