"""What the gateway asks of vmm beside following it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import grpc

from nexus.vmm.v1.vmm_pb2 import GetVmRequest, ReportGuestRequest, TouchVmRequest
from nexus_rpc.channel import trace_metadata
from nexus_rpc.errors import from_rpc_error

if TYPE_CHECKING:
    from nexus.vmm.v1.vmm_pb2 import GuestEvent, Vm
    from nexus.vmm.v1.vmm_pb2_grpc import VmServiceAsyncStub

_TIMEOUT = 5.0


class Vmm(Protocol):
    """The owner of the VMs. Every call raises NexusError, Unavailable while vmm is down."""

    async def get(self, vm: str) -> Vm:
        """Return the VM with that id or name."""

    async def report(self, vm: Vm, event: GuestEvent.ValueType, reason: str) -> Vm:
        """Say what the guest of this boot of the VM did. Returns the VM after it."""

    async def touch(self, vm_id: str) -> None:
        """Say that the VM is in use."""


class GrpcVmm:
    """vmm, reached by gRPC."""

    def __init__(self, stub: VmServiceAsyncStub) -> None:
        self._stub = stub

    async def get(self, vm: str) -> Vm:
        """See `Vmm`."""
        try:
            response = await self._stub.GetVm(
                GetVmRequest(vm=vm), timeout=_TIMEOUT, metadata=trace_metadata()
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return response.vm

    async def report(self, vm: Vm, event: GuestEvent.ValueType, reason: str) -> Vm:
        """See `Vmm`."""
        request = ReportGuestRequest(vm=vm.id, boot=vm.boot, event=event, reason=reason[:512])
        try:
            response = await self._stub.ReportGuest(request, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return response.vm

    async def touch(self, vm_id: str) -> None:
        """See `Vmm`."""
        try:
            await self._stub.TouchVm(TouchVmRequest(vm=vm_id), timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
