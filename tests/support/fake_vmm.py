"""vmm as nexusctl meets it; see `fake_services`."""

import asyncio

from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus_rpc.errors import FailedPrecondition, InvalidArgument, NotFound


class FakeVmm(vmm_pb2_grpc.VmServiceServicer):
    def __init__(self, fakes):
        self.fakes = fakes

    async def CreateVm(self, request, context):
        method = await self.fakes.begin(request, context)
        if request.spec.vcpu_count > 32:
            raise InvalidArgument("INVALID_FIELD", "vcpu_count is 99: 1 to 32", field="vcpu_count")
        if request.spec.image not in ("", "debian", "alpine"):
            raise NotFound("IMAGE_NOT_FOUND", f"there is no image {request.spec.image!r}")
        vm = vmm_pb2.Vm(id=request.vm_id, name=request.name, spec=request.spec)
        vm.state = vmm_pb2.VM_STATE_CREATED
        vm.create_time.GetCurrentTime()
        self.fakes.vms[vm.id] = vm
        self.fakes.tell(vmm_pb2.WatchVmsResponse(vm=vm))
        await self.fakes.end(method, context)
        return vmm_pb2.CreateVmResponse(vm=vm)

    async def WatchVms(self, request, context):
        queue = asyncio.Queue()
        self.fakes.watchers.add(queue)
        self.fakes.called["WatchVms"].set()
        self.fakes.requests["WatchVms"].append(request)
        try:
            for vm in tuple(self.fakes.vms.values()):
                yield vmm_pb2.WatchVmsResponse(vm=vm)
            yield vmm_pb2.WatchVmsResponse(synced=True, revision=41)
            while True:
                yield await queue.get()
        finally:
            self.fakes.watchers.discard(queue)

    async def GetVm(self, request, context):
        await self.fakes.begin(request, context)
        return vmm_pb2.GetVmResponse(vm=self.fakes.find(request.vm))

    async def ListVms(self, request, context):
        await self.fakes.begin(request, context)
        wanted = request.filter
        vms = [
            vm
            for vm in self.fakes.vms.values()
            if (not wanted.states or vm.state in wanted.states)
            and all(value in ("", vm.spec.tags.get(key)) for key, value in wanted.tags.items())
        ]
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.fakes.page)
        token = str(end) if end < len(vms) else ""
        return vmm_pb2.ListVmsResponse(vms=vms[start:end], next_page_token=token)

    async def StartVm(self, request, context):
        await self.fakes.begin(request, context)
        vm = self.fakes.find(request.vm)
        if self.fakes.is_live(vm):
            raise FailedPrecondition("VM_STATE", f"{vm.name} is live already")
        vm.state = vmm_pb2.VM_STATE_RUNNING
        self.fakes.tell(vmm_pb2.WatchVmsResponse(vm=vm))
        return vmm_pb2.StartVmResponse(vm=vm)

    async def StopVm(self, request, context):
        await self.fakes.begin(request, context)
        vm = self.fakes.find(request.vm)
        if not self.fakes.is_live(vm):
            raise FailedPrecondition("VM_STATE", f"{vm.name} is not live")
        vm.state = vmm_pb2.VM_STATE_STOPPED
        self.fakes.tell(vmm_pb2.WatchVmsResponse(vm=vm))
        return vmm_pb2.StopVmResponse(vm=vm)

    async def PauseVm(self, request, context):
        await self.fakes.begin(request, context)
        return vmm_pb2.PauseVmResponse(
            vm=self._halt(request.vm, vmm_pb2.VM_STATE_READY, vmm_pb2.VM_STATE_PAUSED)
        )

    async def ResumeVm(self, request, context):
        await self.fakes.begin(request, context)
        return vmm_pb2.ResumeVmResponse(
            vm=self._halt(request.vm, vmm_pb2.VM_STATE_PAUSED, vmm_pb2.VM_STATE_RUNNING)
        )

    def _halt(self, ref, before, after):
        vm = self.fakes.find(ref)
        if vm.state != before:
            raise FailedPrecondition("VM_STATE", f"{vm.name} is in another state")
        vm.state = after
        return vm

    async def DeleteVm(self, request, context):
        await self.fakes.begin(request, context)
        vm = self.fakes.find(request.vm)
        if self.fakes.is_live(vm):
            raise FailedPrecondition("VM_STATE", f"{vm.name} is live; stop it first")
        del self.fakes.vms[vm.id]
        self.fakes.tell(vmm_pb2.WatchVmsResponse(deleted_vm_id=vm.id))
        return vmm_pb2.DeleteVmResponse()

    async def UpdateVm(self, request, context):
        await self.fakes.begin(request, context)
        vm = self.fakes.find(request.vm)
        if request.etag not in ("", vm.etag):
            raise FailedPrecondition("ETAG_MISMATCH", f"the spec of VM {vm.name!r} has changed")
        if "tags" in request.update_mask.paths:
            vm.spec.tags.clear()
        request.update_mask.MergeMessage(request.spec, vm.spec, replace_message_field=True)
        return vmm_pb2.UpdateVmResponse(vm=vm)

    async def UpdateNetworkInterface(self, request, context):
        method = await self.fakes.begin(request, context)
        vm = self.fakes.find(request.vm)
        held, wanted = vm.spec.network, request.network
        if self.fakes.is_live(vm) and (held.tap, held.mac) != (wanted.tap, wanted.mac):
            raise FailedPrecondition("VM_STATE", f"{vm.name} is live: no other TAP or MAC")
        held.CopyFrom(wanted)
        await self.fakes.end(method, context)
        return vmm_pb2.UpdateNetworkInterfaceResponse(vm=vm)

    async def GetConsoleLog(self, request, context):
        await self.fakes.begin(request, context)
        self.fakes.find(request.vm)
        lines = self.fakes.console.splitlines(keepends=True)
        log = b"".join(lines[-request.tail_lines :])
        for start in range(0, len(log), 1000):
            yield vmm_pb2.GetConsoleLogResponse(data=log[start : start + 1000])
        while request.follow and (answer := await self.fakes.printed.get()):
            yield answer

    async def WriteConsole(self, request, context):
        await self.fakes.begin(request, context)
        self.fakes.find(request.vm)
        self.fakes.typed.put_nowait(request.data)
        return vmm_pb2.WriteConsoleResponse()

    async def SetBalloon(self, request, context):
        await self.fakes.begin(request, context)
        vm = self.fakes.find(request.vm)
        if not vm.spec.balloon:
            raise FailedPrecondition("NO_BALLOON", f"{vm.name} has no balloon")
        return vmm_pb2.SetBalloonResponse(vm=vm)

    async def GetCapacity(self, request, context):
        await self.fakes.begin(request, context)
        return vmm_pb2.GetCapacityResponse(budgets=self.fakes.budgets)

    async def GetInfo(self, request, context):
        await self.fakes.begin(request, context)
        return vmm_pb2.GetInfoResponse(
            version="0.1.0",
            firecracker_version="1.15.0",
            images=["alpine", "debian"],
            kernels=["default"],
            subsystems=[
                vmm_pb2.Subsystem(name=name, ok=not trouble, detail=trouble or "fine")
                for name, trouble in self.fakes.subsystems.items()
            ],
        )
