"""VmService: converts between the proto and the operations, and does nothing else."""

# ruff: noqa: ARG002  # gRPC gives request and context to every handler

from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc

from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus_rpc.errors import invalid_field
from nexus_rpc.ids import check_name, check_vm_id, check_vm_ref
from nexus_vmm.api.convert import GUEST_EVENTS, to_budget, to_proto
from nexus_vmm.api.events import Events
from nexus_vmm.api.interface import check_interface
from nexus_vmm.api.listing import check_listing
from nexus_vmm.api.spec import check_spec
from nexus_vmm.calls import Request
from nexus_vmm.console.consoles import check_wanted
from nexus_vmm.console.serial import check_typed
from nexus_vmm.records.amend import check_mask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from nexus_vmm.config.store import SettingStore
    from nexus_vmm.console.consoles import Consoles
    from nexus_vmm.machine.assets import Assets
    from nexus_vmm.operations.balloon import Balloons
    from nexus_vmm.operations.supervisor import Supervisor
    from nexus_vmm.places import Places
    from nexus_vmm.records.store import Store
    from nexus_vmm.records.watch import Hub
    from nexus_vmm.reports.health import Health

NAME = "nexus.vmm.v1.VmService"

_MAX_GRACE = 300
_MAX_REASON = 512
_MAX_BOOT = 64
_MAX_ETAG = 64

Context = grpc.aio.ServicerContext[Any, Any]


class VmServicer(vmm_pb2_grpc.VmServiceServicer):
    """Serves `nexus.vmm.v1.VmService`; its proto is the manual."""

    def __init__(
        self,
        store: Store,
        hub: Hub,
        supervisor: Supervisor,
        assets: Assets,
        places: Places,
        *,
        settings: SettingStore,
        balloons: Balloons,
        consoles: Consoles,
        health: Health,
    ) -> None:
        self._store = store
        self._hub = hub
        self._supervisor = supervisor
        self._assets = assets
        self._places = places
        self._events = Events(places)
        self._settings = settings
        self._balloons = balloons
        self._consoles = consoles
        self._health = health

    async def CreateVm(
        self, request: vmm_pb2.CreateVmRequest, context: Context
    ) -> vmm_pb2.CreateVmResponse:
        """Record a VM and make its disk."""
        vm = await self._supervisor.create(
            _request("CreateVm", request.request_id, request),
            check_vm_id("vm_id", request.vm_id) if request.vm_id else "",
            check_name("name", request.name),
            check_spec(request.spec, await self._settings.current()),
        )
        return vmm_pb2.CreateVmResponse(vm=to_proto(vm, self._places))

    async def GetVm(self, request: vmm_pb2.GetVmRequest, context: Context) -> vmm_pb2.GetVmResponse:
        """Return one VM, with its history."""
        vm = await self._store.find(check_vm_ref("vm", request.vm))
        history = await self._store.history(vm)
        return vmm_pb2.GetVmResponse(vm=to_proto(vm, self._places, history))

    async def ListVms(
        self, request: vmm_pb2.ListVmsRequest, context: Context
    ) -> vmm_pb2.ListVmsResponse:
        """Return a page of VMs."""
        listing = check_listing(request)
        page = await self._store.page(listing)
        vms = [to_proto(vm, self._places, page.histories.get(vm.seq, ())) for vm in page.vms]
        if listing.mask:
            for vm in vms:
                listing.mask.apply(vm)
        return vmm_pb2.ListVmsResponse(vms=vms, next_page_token=page.next_token)

    async def StartVm(
        self, request: vmm_pb2.StartVmRequest, context: Context
    ) -> vmm_pb2.StartVmResponse:
        """Boot a VM."""
        vm = await self._supervisor.start(
            _request("StartVm", request.request_id, request),
            check_vm_ref("vm", request.vm),
            context.time_remaining(),
        )
        return vmm_pb2.StartVmResponse(vm=to_proto(vm, self._places))

    async def StopVm(
        self, request: vmm_pb2.StopVmRequest, context: Context
    ) -> vmm_pb2.StopVmResponse:
        """Stop a VM."""
        grace = request.grace_seconds
        if not request.HasField("grace_seconds"):
            grace = (await self._settings.current()).stop_grace_seconds
        if grace > _MAX_GRACE:
            raise invalid_field("grace_seconds", grace, f"0 to {_MAX_GRACE}")
        vm = await self._supervisor.stop(
            _request("StopVm", request.request_id, request), check_vm_ref("vm", request.vm), grace
        )
        return vmm_pb2.StopVmResponse(vm=to_proto(vm, self._places))

    async def DrainVms(
        self, request: vmm_pb2.DrainVmsRequest, context: Context
    ) -> vmm_pb2.DrainVmsResponse:
        """Stop all VMs because the host shuts down."""
        grace = request.grace_seconds
        if not request.HasField("grace_seconds"):
            grace = (await self._settings.current()).drain_grace_seconds
        if grace > _MAX_GRACE:
            raise invalid_field("grace_seconds", grace, f"0 to {_MAX_GRACE}")
        return vmm_pb2.DrainVmsResponse(stopped=await self._supervisor.drain(grace))

    async def TouchVm(
        self, request: vmm_pb2.TouchVmRequest, context: Context
    ) -> vmm_pb2.TouchVmResponse:
        """Note that a VM is in use."""
        vm = await self._supervisor.touch(check_vm_ref("vm", request.vm))
        return vmm_pb2.TouchVmResponse(expire_time=to_proto(vm, self._places).expire_time)

    async def PauseVm(
        self, request: vmm_pb2.PauseVmRequest, context: Context
    ) -> vmm_pb2.PauseVmResponse:
        """Halt a VM's vCPUs."""
        vm = await self._supervisor.pause(
            _request("PauseVm", request.request_id, request), check_vm_ref("vm", request.vm)
        )
        return vmm_pb2.PauseVmResponse(vm=to_proto(vm, self._places))

    async def ResumeVm(
        self, request: vmm_pb2.ResumeVmRequest, context: Context
    ) -> vmm_pb2.ResumeVmResponse:
        """Let a VM's vCPUs run again."""
        vm = await self._supervisor.resume(
            _request("ResumeVm", request.request_id, request), check_vm_ref("vm", request.vm)
        )
        return vmm_pb2.ResumeVmResponse(vm=to_proto(vm, self._places))

    async def DeleteVm(
        self, request: vmm_pb2.DeleteVmRequest, context: Context
    ) -> vmm_pb2.DeleteVmResponse:
        """Delete a VM that is not live."""
        await self._supervisor.delete(
            _request("DeleteVm", request.request_id, request), check_vm_ref("vm", request.vm)
        )
        return vmm_pb2.DeleteVmResponse()

    async def UpdateVm(
        self, request: vmm_pb2.UpdateVmRequest, context: Context
    ) -> vmm_pb2.UpdateVmResponse:
        """Change fields of a VM's spec."""
        fields = check_mask(request.update_mask.paths)
        if len(request.etag) > _MAX_ETAG:
            raise invalid_field("etag", request.etag, "as Vm.etag has it, or empty")
        vm = await self._supervisor.update(
            _request("UpdateVm", request.request_id, request),
            check_vm_ref("vm", request.vm),
            check_spec(request.spec, await self._settings.current()),
            fields,
            request.etag,
        )
        return vmm_pb2.UpdateVmResponse(vm=to_proto(vm, self._places))

    async def UpdateNetworkInterface(
        self, request: vmm_pb2.UpdateNetworkInterfaceRequest, context: Context
    ) -> vmm_pb2.UpdateNetworkInterfaceResponse:
        """Change the addresses of a VM's interface."""
        vm = await self._supervisor.set_network(
            _request("UpdateNetworkInterface", request.request_id, request),
            check_vm_ref("vm", request.vm),
            check_interface("network", request.network),
        )
        return vmm_pb2.UpdateNetworkInterfaceResponse(vm=to_proto(vm, self._places))

    async def WatchVms(
        self, request: vmm_pb2.WatchVmsRequest, context: Context
    ) -> AsyncIterator[vmm_pb2.WatchVmsResponse]:
        """Stream the present, and then each change."""
        async for told in self._hub.watch(request.after_revision):
            yield self._events.of(told)

    async def GetConsoleLog(
        self, request: vmm_pb2.GetConsoleLogRequest, context: Context
    ) -> AsyncIterator[vmm_pb2.GetConsoleLogResponse]:
        """Stream the console log, oldest first."""
        vm = await self._store.find(check_vm_ref("vm", request.vm))
        async with aclosing(self._consoles.read(vm, check_wanted(request))) as chunks:
            async for data, dropped in chunks:
                yield vmm_pb2.GetConsoleLogResponse(data=data, dropped_bytes=dropped)

    async def WriteConsole(
        self, request: vmm_pb2.WriteConsoleRequest, context: Context
    ) -> vmm_pb2.WriteConsoleResponse:
        """Type into a live VM's console."""
        data = check_typed("data", request.data)
        self._consoles.type(await self._supervisor.touch(check_vm_ref("vm", request.vm)), data)
        return vmm_pb2.WriteConsoleResponse()

    async def SetBalloon(
        self, request: vmm_pb2.SetBalloonRequest, context: Context
    ) -> vmm_pb2.SetBalloonResponse:
        """Set how much memory a VM's balloon takes."""
        vm = await self._balloons.set(check_vm_ref("vm", request.vm), request.amount_mib)
        return vmm_pb2.SetBalloonResponse(vm=to_proto(vm, self._places))

    async def GetCapacity(
        self, request: vmm_pb2.GetCapacityRequest, context: Context
    ) -> vmm_pb2.GetCapacityResponse:
        """Return the budgets of the host and the quotas of tags."""
        budgets = await self._store.budgets()
        return vmm_pb2.GetCapacityResponse(budgets=map(to_budget, budgets))

    async def ReportGuest(
        self, request: vmm_pb2.ReportGuestRequest, context: Context
    ) -> vmm_pb2.ReportGuestResponse:
        """Record what a guest did."""
        event = GUEST_EVENTS.get(request.event)
        if event is None:
            known = ", ".join(vmm_pb2.GuestEvent.Name(number) for number in GUEST_EVENTS)
            raise invalid_field("event", request.event, f"one of {known}")
        if len(request.reason) > _MAX_REASON:
            raise invalid_field("reason", request.reason, f"at most {_MAX_REASON} characters")
        if len(request.boot) > _MAX_BOOT:
            raise invalid_field("boot", request.boot, f"at most {_MAX_BOOT} characters")
        vm = await self._supervisor.report(
            check_vm_ref("vm", request.vm), request.boot, event, request.reason
        )
        return vmm_pb2.ReportGuestResponse(vm=to_proto(vm, self._places))

    async def GetInfo(
        self, request: vmm_pb2.GetInfoRequest, context: Context
    ) -> vmm_pb2.GetInfoResponse:
        """Return what this service runs with."""
        seen = await self._health.now()
        stored = await self._store.firecracker_version() if self._health.works("store") else ""
        return vmm_pb2.GetInfoResponse(
            version=version("nexus-vmm"),
            firecracker_version=stored,
            images=await asyncio.to_thread(self._assets.images),
            kernels=await asyncio.to_thread(self._assets.kernels),
            subsystems=[
                vmm_pb2.Subsystem(name=one.name, ok=one.ok, detail=one.detail) for one in seen
            ],
        )


def _request(method: str, request_id: str, body: Message) -> Request:
    return Request(id=request_id, method=method, body=body)
