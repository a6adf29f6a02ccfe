"""One life of vmm, from start to kill, over a database and a host that outlive it."""

import asyncio
import contextlib
from pathlib import Path

import vmm_driver
import vmm_guest
import vmm_host

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import Unavailable
from nexus_vmm.calls import Request
from nexus_vmm.config.store import SettingStore
from nexus_vmm.limits.admission import Admission
from nexus_vmm.operations.balloon import Balloons
from nexus_vmm.operations.reconcile import reconcile
from nexus_vmm.operations.supervisor import Supervisor
from nexus_vmm.operations.work import Work
from nexus_vmm.records import rows
from nexus_vmm.records.store import Store
from nexus_vmm.records.watch import Hub
from nexus_vmm.states import LIVE, State
from nexus_vmm.vm import Goal


class Crash(BaseException):
    """kill -9, at the point where it is raised."""


class Chaos:
    """Counts the points where vmm touches its ports, and fails or kills it at one of them.

    `at` is the number of that point, or its name.
    After a kill every touch kills again: a dead process does nothing more.
    """

    def __init__(self, at=0, error=None):
        self.count = 0
        self.at = at
        self.error = error
        self.dead = False

    def point(self, name=""):
        if self.dead:
            raise Crash
        self.count += 1
        if self.at in (self.count, name):
            if self.error is not None:
                raise self.error
            self.dead = True
            raise Crash

    def around(self, port):
        """Return `port` with a point before and after each of its calls."""
        return _Port(port, self)


class _Port:
    def __init__(self, port, chaos):
        self._port = port
        self._chaos = chaos

    def __getattr__(self, name):
        method = getattr(self._port, name)

        async def call(*args, **kwargs):
            if name != "wait":
                self._chaos.point(f"before {name}")
            result = await method(*args, **kwargs)
            # A transaction that was committed does not fail any more; but vmm may be killed then.
            committed = isinstance(self._port, Store) and self._chaos.error is not None
            if not committed and (name != "wait" or self._chaos.dead):
                self._chaos.point(f"after {name}")
            return result

        return call


class Host:
    """What outlives vmm: the database, the world of the driver, and the room there is."""

    def __init__(self, database):
        self.database = database
        self.world = vmm_driver.World()
        self.room = vmm_host.FakeHost()
        self.boot = "host-boot-1"

    @classmethod
    @contextlib.asynccontextmanager
    async def fresh(cls):
        database = await rows.open_database(Path(":memory:"))
        try:
            yield cls(database)
        finally:
            await database.close()

    async def live(self, plan, chaos=None):
        """Run vmm from reconciliation through `plan(vmm)` to its end; return what `plan` did.

        A kill by `chaos` ends it wherever it is, as does an error in its background: then this
        returns Crash.
        """
        chaos = chaos or Chaos()
        result = None
        try:
            async with asyncio.TaskGroup() as tasks:
                vmm = await Vmm.compose(self, chaos, tasks)
                result = await plan(vmm)
                chaos.dead = True
                _end()
        except* _End:
            pass
        except* (Crash, Unavailable):
            result = Crash
        return result


class _End(Exception):
    pass


def _end():
    raise _End


class Vmm:
    """vmm without its server. Methods are the calls of its API."""

    @classmethod
    async def compose(cls, host, chaos, tasks):
        vmm = cls()
        vmm.hub = Hub()
        store = Store(host.database, vmm.hub, Admission(host.room))
        vmm.settings = SettingStore(host.database)
        await store.fill_hub()
        vmm.store = chaos.around(store)
        driver = chaos.around(vmm_driver.FakeDriver(host.world, chaos.point))
        vmm.work = Work(tasks)
        vmm.balloons = Balloons(vmm.store, driver, vmm.work)
        vmm.supervisor = Supervisor(vmm.store, driver, vmm.work)
        await reconcile(vmm.store, driver, vmm.supervisor, host.boot)
        tasks.create_task(vmm.supervisor.expiry.follow(vmm.hub))
        return vmm

    async def create(self, name="hello", vm_id="", request_id="", **spec):
        body = vmm_pb2.CreateVmRequest(name=name, vm_id=vm_id, request_id=request_id)
        request = Request(request_id, "CreateVm", body)
        return await self.supervisor.create(request, vm_id, name, vmm_guest.spec(**spec))

    async def start(self, vm="hello", request_id="", budget=None):
        body = vmm_pb2.StartVmRequest(vm=vm, request_id=request_id)
        return await self.supervisor.start(Request(request_id, "StartVm", body), vm, budget)

    async def stop(self, vm="hello", request_id="", grace=0.01):
        body = vmm_pb2.StopVmRequest(vm=vm, request_id=request_id)
        return await self.supervisor.stop(Request(request_id, "StopVm", body), vm, grace)

    async def touch(self, vm="hello"):
        return await self.supervisor.touch(vm)

    async def drain(self, grace=0.01):
        return await self.supervisor.drain(grace)

    async def pause(self, vm="hello", request_id=""):
        body = vmm_pb2.PauseVmRequest(vm=vm, request_id=request_id)
        return await self.supervisor.pause(Request(request_id, "PauseVm", body), vm)

    async def resume(self, vm="hello", request_id=""):
        body = vmm_pb2.ResumeVmRequest(vm=vm, request_id=request_id)
        return await self.supervisor.resume(Request(request_id, "ResumeVm", body), vm)

    async def delete(self, vm="hello", request_id=""):
        body = vmm_pb2.DeleteVmRequest(vm=vm, request_id=request_id)
        await self.supervisor.delete(Request(request_id, "DeleteVm", body), vm)

    async def update(self, fields=("restart",), vm="hello", request_id="", etag="", **spec):
        body = vmm_pb2.UpdateVmRequest(vm=vm, request_id=request_id)
        body.update_mask.paths.extend([*fields, repr(spec)])
        request = Request(request_id, "UpdateVm", body)
        return await self.supervisor.update(request, vm, vmm_guest.spec(**spec), fields, etag)

    async def set_network(self, network, vm="hello", request_id=""):
        body = vmm_pb2.UpdateNetworkInterfaceRequest(vm=vm, request_id=request_id)
        body.network.ipv4 = network.ipv4
        request = Request(request_id, "UpdateNetworkInterface", body)
        return await self.supervisor.set_network(request, vm, network)

    async def until(self, vm_id, state):
        """Return the VM once it is in `state`."""
        async with asyncio.timeout(5), contextlib.aclosing(self.hub.watch()) as changes:
            async for _, change in changes:
                if getattr(change, "id", None) == vm_id and change.state is state:
                    return change
        raise AssertionError

    async def once(self, holds):
        """Return once `holds()`, which is looked at whenever a VM has changed."""
        async with asyncio.timeout(5), contextlib.aclosing(self.hub.watch()) as changes:
            async for _ in changes:
                if holds():
                    return

    async def until_boot_after(self, vm):
        """Return the VM once it is at another boot than `vm` was."""
        async with asyncio.timeout(5), contextlib.aclosing(self.hub.watch()) as changes:
            async for _, change in changes:
                if getattr(change, "id", None) == vm.id and change.boot not in ("", vm.boot):
                    return change
        raise AssertionError


def living(plan):
    """Make a test of `plan(vmm, world)`: one life of vmm on `host`, checked at its end."""

    async def test(host):
        async def life(vmm):
            await plan(vmm, host.world)
            check(vmm.hub.present(), host.world)
            assert vmm.hub.present() == await vmm.store.all()

        await host.live(life)

    return test


def check(vms, world):
    """Assert that store and world agree in everything, and that nothing is left over."""
    live = {vm.id: vm for vm in vms if vm.state in LIVE}
    assert {vm_id: process.boot for vm_id, process in world.processes.items()} == {
        vm_id: vm.boot for vm_id, vm in live.items()
    }
    assert all(process.booted for process in world.processes.values())
    assert all(
        world.processes[vm_id].paused == (vm.state is State.PAUSED) for vm_id, vm in live.items()
    )
    assert all(world.processes[vm_id].pid == vm.pid for vm_id, vm in live.items())
    assert world.disks.keys() == {vm.id for vm in vms}
    # A disk grows at the next start.
    assert all(world.disks[vm.id] == vm.spec.disk_mib for vm in live.values())
    assert all(world.disks[vm.id] <= vm.spec.disk_mib for vm in vms)
    assert world.runs == set(live)
    assert not world.ends
    for vm in vms:
        goal = Goal.RUN if vm.state in LIVE else Goal.STOP
        assert vm.goal is (Goal.PAUSE if vm.state is State.PAUSED else goal)
        assert (vm.pid != 0) == (vm.state in LIVE)


def unavailable():
    """Return an error as of a systemd that does not answer."""
    return Unavailable("SYSTEMD_UNREACHABLE", "systemd does not answer")


async def crashed_of(vmm, world, policy, name="hello"):
    """Return a VM with the restart policy `policy` that crashed just now, cleared up."""
    await vmm.create(name, restart=policy)
    vm = await vmm.start(name)
    world.end(vm.id)
    vm = await vmm.until(vm.id, State.CRASHED)
    async with vmm.work.lock(vm.id):
        return vm
