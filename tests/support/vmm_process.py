"""vmm as a process, with a message bus, a database and directories of its own.

Only systemd and Firecracker are stand-ins.
"""

import asyncio
import contextlib
import os
import sys

import grpc
import vmm_guest
import vmm_units
from vmm_systemd import FakeSystemd, message_bus

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_rpc.errors import from_rpc_error
from nexus_vmm.places import vm_ids

LIVE = {*range(pb.VM_STATE_RUNNING, pb.VM_STATE_UNREACHABLE + 1), pb.VM_STATE_PAUSED}
SECONDS = 30


class Service:
    """A vmm that can be started, killed and started again, and its host."""

    def __init__(self, directory, launch=vmm_units.jailed):
        self.directory = directory
        self.places = vmm_guest.places(directory)
        vmm_guest.guest_files(directory / "guest")
        for name in ("server", "state"):
            (directory / name).mkdir()
        self.config = directory / "vmm.toml"
        self.config.write_text(
            f"state_dir = '{directory}/state'\nvms_dir = '{self.places.vms_dir}'\n"
            f"run_dir = '{self.places.run_dir}'\nguest_dir = '{directory}/guest'\n"
            f"[server]\nruntime_dir = '{directory}/server'\n"
        )
        self.model = vmm_units.Model(launch(self.places.run_dir))
        self.process = None

    async def start(self):
        with (self.directory / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "nexus_vmm",
                "--config",
                self.config,
                env=os.environ | {"DBUS_SYSTEM_BUS_ADDRESS": self.address},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        return await self.process.wait()

    async def call(self, method, **fields):
        """Call the API as soon as it answers. Raises NexusError."""
        request = getattr(pb, f"{method}Request")(**fields)
        async with grpc.aio.insecure_channel(
            f"unix:{self.directory}/server/vmm.sock", [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = vmm_pb2_grpc.VmServiceStub(channel)
            try:
                return await getattr(stub, method)(request, timeout=SECONDS, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from error

    async def vms(self):
        return list((await self.call("ListVms")).vms)

    async def until(self, vm, state):
        """Return the VM once it is in `state`, from the stream of changes."""
        async with (
            asyncio.timeout(SECONDS),
            grpc.aio.insecure_channel(f"unix:{self.directory}/server/vmm.sock") as channel,
        ):
            changes = vmm_pb2_grpc.VmServiceStub(channel).WatchVms(
                pb.WatchVmsRequest(), wait_for_ready=True
            )
            async for change in changes:
                if change.vm.name == vm and change.vm.state == state:
                    return change.vm
        raise AssertionError

    async def check(self):
        """Assert that the store agrees with processes, disks and directories."""
        vms = await self.vms()
        live = {vm.id: vm for vm in vms if vm.state in LIVE}
        running = {vm_id for vm_id in self.model.units if not self.model.describe(vm_id).gone}
        assert running == set(live)
        assert all(self.model.units[vm_id].pid == vm.pid for vm_id, vm in live.items())
        assert vm_ids(self.places.vms_dir) == {vm.id for vm in vms}
        assert vm_ids(self.places.run_dir) == set(live)
        assert all(self.places.vsock(vm_id).is_socket() for vm_id in live)
        return vms


@contextlib.asynccontextmanager
async def hosting(directory, launch=vmm_units.jailed):
    """Yield a service that is not started yet, on a host whose units `launch` makes."""
    service = Service(directory, launch)
    async with message_bus(directory) as service.address:
        service.systemd = FakeSystemd(service.model)
        await service.systemd.connect(service.address)
        try:
            yield service
        finally:
            if service.process is not None:
                await service.kill()
            service.model.changed.clear()  # nobody is there to hear of the ends
            await service.model.close()
            await service.systemd.close()
