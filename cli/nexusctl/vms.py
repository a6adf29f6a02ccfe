"""Reading VMs from vmm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexusctl.services import Services

_PAGE = 500


async def every(services: Services) -> AsyncIterator[vmm_pb2.Vm]:
    """Yield all VMs, oldest first. Raises NexusError."""
    vmm = services.vmm
    token = ""
    while True:
        request = vmm_pb2.ListVmsRequest(page_size=_PAGE, page_token=token)
        page = await vmm.ask(vmm.stub.ListVms, request)
        for vm in page.vms:
            yield vm
        token = page.next_page_token
        if not token:
            return


async def get(services: Services, vm: str) -> vmm_pb2.Vm:
    """Return one VM by id or name. Raises NexusError."""
    vmm = services.vmm
    return (await vmm.ask(vmm.stub.GetVm, vmm_pb2.GetVmRequest(vm=vm))).vm
