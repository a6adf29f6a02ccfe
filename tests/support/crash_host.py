"""The dev host under the crash matrix: operations under way, strikes, and what they leave."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL
from contextlib import suppress
from functools import partial
from uuid import uuid4

from crash_agreement import LIVE, disagreements
from crash_hand import SCRIPT, Hand
from devhost import CLIENT_CONFIG

from deploy.devhost.layout import Layout
from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import NexusError, NotFound
from nexus_rpc.ids import new_vm_id
from nexusctl.attach import attach
from nexusctl.endpoint import resolve
from nexusctl.interfaces import of_port
from nexusctl.lifecycle import give_back_port
from nexusctl.services import Services

SETTLE_SECONDS = 120
UP_SECONDS = 600
SERVE_SECONDS = 60
CALL_SECONDS = 60
GRACE_SECONDS = 3
UNANSWERED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "STOPPING", "CANCELLED"}
UNANSWERED |= {"CONNECTION_REFUSED", "CONNECTION_LOST", "TLS_FAILED"}
"""Reasons that leave open what became of a call: it is to be repeated."""
FAIR = UNANSWERED | {"VM_STATE", "VM_NOT_FOUND", "BOOT_FAILED", "PAUSE_REFUSED"}
FAIR |= {"START_TIMEOUT", "SYSTEMD_UNREACHABLE", "UNIT_FAILED", "FIRECRACKER_SILENT"}
"""Reasons with which an operation may fail while something is struck."""


class CrashHost:
    """Use it as a context, on one event loop."""

    async def __aenter__(self):
        self._services = Services(resolve(None, {"NEXUS_CONFIG": str(CLIENT_CONFIG)}))
        self._hand = await Hand.reach()
        return self

    async def __aexit__(self, *error):
        await self._hand.close()
        await self._services.__aexit__(*error)

    @property
    def stub(self):
        return self._services.vmm.stub

    async def ask(self, method, request):
        return await self._services.vmm.ask(method, request, CALL_SECONDS)

    def create(self, name, condition=vmm_pb2.RESTART_CONDITION_NONE):
        """Return the call that makes a VM and its port."""
        vm_id = new_vm_id()
        request = vmm_pb2.CreateVmRequest(vm_id=vm_id, name=name, request_id=str(uuid4()))
        request.spec.disk_mib = 256
        request.spec.restart.condition = condition
        if condition != vmm_pb2.RESTART_CONDITION_NONE:
            request.spec.restart.delay = vmm_pb2.RESTART_DELAY_IMMEDIATE
        return partial(self._make, request)

    async def _make(self, request):
        """Make a VM, or give its port back: as nexusctl does."""
        wish = netd_pb2.AttachPortRequest()
        port = await attach(self._services, request.vm_id, wish)
        request.spec.network.CopyFrom(of_port(port))
        try:
            return await self.ask(self.stub.CreateVm, request)
        except NexusError as error:
            if error.reason not in UNANSWERED:
                await give_back_port(self._services, request.vm_id)
            raise

    async def _delete(self, request):
        """Delete a VM and give its port back: as nexusctl does."""
        await self.ask(self.stub.DeleteVm, request)
        await give_back_port(self._services, request.vm)

    def operation(self, name, vm):
        """Return the call of an operation on a VM, by its id; to repeat it, call it again."""
        known = {"vm": vm, "request_id": str(uuid4())}
        match name:
            case "start":
                request = vmm_pb2.StartVmRequest(**known)
            case "stop":
                request = vmm_pb2.StopVmRequest(grace_seconds=GRACE_SECONDS, **known)
            case "pause":
                request = vmm_pb2.PauseVmRequest(**known)
            case "resume":
                request = vmm_pb2.ResumeVmRequest(**known)
            case "delete":
                return partial(self._delete, vmm_pb2.DeleteVmRequest(**known))
        return partial(self.ask, getattr(self.stub, f"{name.title()}Vm"), request)

    async def get(self, name):
        """Return a VM, or None."""
        try:
            return (await self.ask(self.stub.GetVm, vmm_pb2.GetVmRequest(vm=name))).vm
        except NotFound:
            return None

    async def outcome(self, call):
        """Return what a call answers, or the error that it may end with for what is struck."""
        try:
            return await call()
        except NexusError as error:
            if error.reason not in FAIR:
                raise
            return error

    async def answer(self, call):
        """Return the outcome of a call, which is repeated until vmm answers."""
        async with asyncio.timeout(UP_SECONDS):
            while True:
                outcome = await self.outcome(call)
                if getattr(outcome, "reason", None) not in UNANSWERED:
                    return outcome
                await asyncio.sleep(0.2)

    async def arm(self, point, vm_id):
        """Return what strikes: to be awaited when the operation begins."""
        if point.victim == "power":
            return partial(self._lose_power, point.seconds)
        vmm, there = await self._hand.ask("aim", vm_id)
        old = there if point.operation in ("start", "restart") else []
        return partial(self._hand.ask, "strike", point.victim, vm_id, point.seconds, vmm, old)

    async def _lose_power(self, seconds):
        await asyncio.sleep(seconds)
        pid = int((Layout().run / "qemu.pid").read_text())
        process = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        loop.add_reader(process, lambda: ended.done() or ended.set_result(None))
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            await asyncio.wait_for(ended, 30)
        finally:
            loop.remove_reader(process)
            os.close(process)
        await self._hand.close()
        return "lost power"

    async def be_up(self):
        """Return once the dev host is up and vmm serves; boot the one and wait for the other."""
        async with asyncio.timeout(UP_SECONDS):
            while not self._hand.holds() or not await self._serves():
                argv = ["/usr/bin/python3", SCRIPT, "start"]  # which looks at what is up, too
                process = await asyncio.create_subprocess_exec(*argv, stdout=DEVNULL)
                # On a loaded machine systemd gives a service up, and starts it again.
                if await process.wait() == 0 and not self._hand.holds():
                    await self._hand.close()
                    self._hand = await Hand.reach()

    async def _serves(self):
        """Whether vmm serves, within a time in which it starts."""
        for _ in range(SERVE_SECONDS * 5):
            try:
                await self.ask(self.stub.GetInfo, vmm_pb2.GetInfoRequest())
            except NexusError:
                await asyncio.sleep(0.2)
            else:
                return True
        return False

    async def agree(self, lives=()):
        """Return state, goal, boot and pid of VMs by name, once records and host agree.

        And once the VMs named in `lives` are live.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_SECONDS
        while True:
            look = await self._hand.ask("look")
            vms = {name: tuple(rest) for _, name, *rest in look["vms"]}
            differences = disagreements(look)
            differences += [f"{name}: {vms[name]}" for name in lives if vms[name][0] not in LIVE]
            if not differences:
                return vms
            assert loop.time() < deadline, "\n".join(differences)
            await asyncio.sleep(0.3)

    async def live(self, name, condition=vmm_pb2.RESTART_CONDITION_NONE):
        """Return once a VM is live, made and started where it is not."""
        vm = await self.get(name)
        if vm is None:
            vm = (await self.create(name, condition)()).vm
        if state(vm) not in LIVE:
            await self.operation("start", name)()

    async def remove(self, name):
        """Leave nothing of a VM."""
        vm = await self.get(name)
        if vm is None:
            return
        if vm.state not in (vmm_pb2.VM_STATE_CREATED, vmm_pb2.VM_STATE_STOPPED):
            request = vmm_pb2.StopVmRequest(vm=name, grace_seconds=0)
            await self.ask(self.stub.StopVm, request)
        await self.ask(self.stub.DeleteVm, vmm_pb2.DeleteVmRequest(vm=name))

    async def kill(self, pid):
        """kill -9 of a process in the dev host, unless its power is lost first."""
        with suppress(ConnectionError):
            await self._hand.ask("kill", pid)


def told(outcome):
    """Return in a word what a call ended with."""
    if isinstance(outcome, NexusError):
        return f"{outcome.reason} ({outcome.message})"
    return state(outcome.vm) if hasattr(outcome, "vm") else "done"


def state(vm):
    """Return a VM's state as the database has it."""
    return vmm_pb2.VmState.Name(vm.state).removeprefix("VM_STATE_").lower()
