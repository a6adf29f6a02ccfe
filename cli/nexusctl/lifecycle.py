"""Starting, stopping and deleting a VM across the services."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.gateway.v1 import gateway_pb2
from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import DeadlineExceeded, FailedPrecondition, NexusError, NotFound, Unavailable
from nexus_rpc.vms import LIVE
from nexusctl import vms
from nexusctl.attach import attach
from nexusctl.interfaces import renew
from nexusctl.services import WRITE
from nexusctl.terminal import note

if TYPE_CHECKING:
    from nexusctl.services import Services

_LONGEST_GRACE = 300
"""Seconds, as vmm.proto has them."""


async def start(services: Services, vm: str) -> vmm_pb2.Vm:
    """Boot a VM, on its port; its vCPUs run when this returns. Raises NexusError."""
    known = await vms.get(services, vm)
    if known.state not in LIVE and known.spec.HasField("network"):
        await _hold_port(services, known)
    return await boot(services, vm)


async def boot(services: Services, vm: str) -> vmm_pb2.Vm:
    """Boot a VM whose port was made just now. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.StartVmRequest(vm=vm, request_id=str(uuid4()))
    return (await vmm.ask(vmm.stub.StartVm, request, WRITE)).vm


async def _hold_port(services: Services, vm: vmm_pb2.Vm) -> None:
    """Have netd repair the VM's port, and give the VM the interface that the port makes.

    Raises FailedPrecondition (PORT_LOST): a new one would have the network's policy in place of the
    VM's own, and nobody would say so. Where netd is down, the VM starts as it is.
    """
    netd = services.netd
    try:
        known = await netd.ask(netd.stub.GetPort, netd_pb2.GetPortRequest(vm_id=vm.id))
        wish = netd_pb2.AttachPortRequest(network=known.port.network)
        port = await attach(services, vm.id, wish)
    except NotFound:
        raise FailedPrecondition(
            "PORT_LOST", f"{vm.name} was made for a network, but has no port any more", vm=vm.name
        ) from None
    except (Unavailable, DeadlineExceeded) as error:
        note(f"the port of {vm.name} was not looked at: {error.message}")
        return
    made = vm.spec.network
    await renew(services, vm, port)
    if (port.tap, port.ipv4) != (made.tap, made.ipv4):
        note(f"{vm.name} is at {port.ipv4} on {port.tap} now; it was at {made.ipv4} on {made.tap}")


async def wait_ready(services: Services, vm: str, seconds: float) -> None:
    """Return once the guest of a started VM takes commands.

    Raises NexusError: DeadlineExceeded (GUEST_NOT_READY) after `seconds`.
    """
    gateway = services.gateway
    request = gateway_pb2.GetGuestRequest(vm=vm, wait_ready=True)
    try:
        await gateway.ask(gateway.stub.GetGuest, request, seconds)
    except NexusError as error:
        error.add_note(f"{vm} was started")
        raise


async def stop(services: Services, vm: str, grace: int | None) -> vmm_pb2.Vm:
    """Stop a VM, killing it after `grace` seconds, or as the settings say. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.StopVmRequest(vm=vm, grace_seconds=grace, request_id=str(uuid4()))
    longest = _LONGEST_GRACE if grace is None else grace
    return (await vmm.ask(vmm.stub.StopVm, request, longest + WRITE)).vm


async def pause(services: Services, vm: str) -> vmm_pb2.Vm:
    """Halt a VM's vCPUs. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.PauseVmRequest(vm=vm, request_id=str(uuid4()))
    return (await vmm.ask(vmm.stub.PauseVm, request, WRITE)).vm


async def resume(services: Services, vm: str) -> vmm_pb2.Vm:
    """Let a paused VM go on. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.ResumeVmRequest(vm=vm, request_id=str(uuid4()))
    return (await vmm.ask(vmm.stub.ResumeVm, request, WRITE)).vm


async def delete(services: Services, vm_id: str) -> None:
    """Delete a VM that is not live, then give its port back. Raises NexusError."""
    vmm = services.vmm
    request = vmm_pb2.DeleteVmRequest(vm=vm_id, request_id=str(uuid4()))
    await vmm.ask(vmm.stub.DeleteVm, request, WRITE)
    await give_back_port(services, vm_id)


async def remove(services: Services, vm_id: str, grace: int | None = 0) -> None:
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
        note(
            f"the port of {vm_id} was not given back: {error.message}; "
            "netd takes back what has no VM by itself, within some ten minutes"
        )
