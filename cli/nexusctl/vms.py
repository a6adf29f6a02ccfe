"""Reading VMs from vmm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import NexusError, NotFound
from nexus_rpc.ids import check_vm_ref, is_vm_id
from nexusctl import paged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexusctl.services import Services


async def every(
    services: Services, request: vmm_pb2.ListVmsRequest | None = None
) -> AsyncIterator[vmm_pb2.Vm]:
    """Yield the VMs that `request` asks for; without one all, oldest first. Raises NexusError."""
    vmm = services.vmm
    wanted = request or vmm_pb2.ListVmsRequest()
    async for vm in paged.every(vmm, vmm.stub.ListVms, wanted, "vms"):
        yield vm


async def get(services: Services, vm: str) -> vmm_pb2.Vm:
    """Return one VM by id or name. Raises NexusError."""
    vmm = services.vmm
    return (await vmm.ask(vmm.stub.GetVm, vmm_pb2.GetVmRequest(vm=vm))).vm


async def identify(services: Services, vm: str) -> str:
    """Return the id of a VM by id or name; of an id vmm is not asked. Raises NexusError."""
    if is_vm_id(check_vm_ref("VM", vm)):
        return vm
    try:
        return (await get(services, vm)).id
    except NotFound:
        raise
    except NexusError as error:
        error.add_note("a VM's id would do without vmm")
        raise
