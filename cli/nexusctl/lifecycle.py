"""Starting, stopping and deleting a VM across the services."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.gateway.v1 import gateway_pb2
from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import DeadlineExceeded, FailedPrecondition, NexusError, NotFound, Unavailable
from nexusctl import views
from nexusctl.services import READ, WRITE

if TYPE_CHECKING:
    from nexusctl.services import Services

_NEWS_SECONDS = 5.0
"""The gateway hears of a start from vmm's stream; until then it may not know the VM as live."""
_NEWS_PAUSE = 0.1


async def start(services: Services, vm: str) -> vmm_pb2.Vm:
    """Boot a VM; its vCPUs run when this returns. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.StartVmRequest(vm=vm, request_id=str(uuid4()))
    return (await vmm.ask(vmm.stub.StartVm, request, WRITE)).vm


async def wait_ready(services: Services, vm: str, seconds: float) -> gateway_pb2.Guest:
    """Return the guest of a started VM once it takes commands.

    Raises NexusError: DeadlineExceeded (GUEST_NOT_READY) after `seconds`, with the guest's state.
    """
    gateway = services.gateway
    request = gateway_pb2.GetGuestRequest(vm=vm, wait_ready=True)
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        while True:
            left = max(began + seconds - loop.time(), _NEWS_PAUSE)
            try:
                return (await gateway.ask(gateway.stub.GetGuest, request, left)).guest
            except (NotFound, FailedPrecondition):
                if loop.time() - began > min(_NEWS_SECONDS, seconds):
                    raise
            await asyncio.sleep(_NEWS_PAUSE)
    except DeadlineExceeded as error:
        if error.reason == "GUEST_NOT_READY":
            raise
        raise await _not_ready(services, vm, seconds) from error
    except NexusError as error:
        error.add_note(f"{vm} was started")
        raise


async def _not_ready(services: Services, vm: str, seconds: float) -> NexusError:
    gateway = services.gateway
    request = gateway_pb2.GetGuestRequest(vm=vm)
    try:
        guest = (await gateway.ask(gateway.stub.GetGuest, request, READ)).guest
    except NexusError as error:
        state = error.message
    else:
        shown = views.guest(guest)
        state = ": ".join(filter(None, (shown["state"], shown["reason"])))
    return DeadlineExceeded(
        "GUEST_NOT_READY", f"{vm} was started, but was not ready within {seconds:g} s ({state})"
    )


async def stop(services: Services, vm: str, grace: int) -> vmm_pb2.Vm:
    """Stop a VM, killing it after `grace` seconds. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.StopVmRequest(vm=vm, grace_seconds=grace, request_id=str(uuid4()))
    return (await vmm.ask(vmm.stub.StopVm, request, grace + WRITE)).vm


async def delete(services: Services, vm_id: str) -> None:
    """Delete a VM that is not live, then give its port back. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.DeleteVmRequest(vm=vm_id, request_id=str(uuid4()))
    await vmm.ask(vmm.stub.DeleteVm, request, WRITE)
    await give_back_port(services, vm_id)


async def remove(services: Services, vm_id: str, grace: int = 0) -> None:
    """Delete a VM whatever its state, or see that there is none. Raises NexusError."""
    try:
        await stop(services, vm_id, grace)
    except NotFound:
        await give_back_port(services, vm_id)
        return
    except FailedPrecondition as error:
        if error.reason != "VM_STATE":
            raise
    await delete(services, vm_id)


async def give_back_port(services: Services, vm_id: str) -> None:
    """Detach a VM's port. Where netd is down this only says so: netd compares itself with vmm."""
    netd = services.netd
    request = netd_pb2.DetachPortRequest(vm_id=vm_id, request_id=str(uuid4()))
    try:
        await netd.ask(netd.stub.DetachPort, request, WRITE)
    except (Unavailable, DeadlineExceeded) as error:
        print(
            f"nexusctl: note: the port of {vm_id} was not given back: {error.message}; "
            "netd does it once it is up and sees that there is no such VM",
            file=sys.stderr,
        )
