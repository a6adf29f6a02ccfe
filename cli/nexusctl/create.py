"""Making a VM out of three services: a port from netd, then the VM from vmm with it.

The id is made here, so that the port can be had first. Whatever fails or is interrupted gives
the port back; only where it is unknown whether vmm made the VM does the port stay with it: netd
releases it by itself, when vmm has told of no such VM within ten minutes.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import AlreadyExists, DeadlineExceeded, NexusError, NotFound, Unavailable
from nexus_rpc.ids import check_name, new_vm_id
from nexusctl.attach import attach, publish
from nexusctl.interfaces import of_port
from nexusctl.lifecycle import give_back_port, remove
from nexusctl.services import WRITE
from nexusctl.settled import settled
from nexusctl.terminal import note

if TYPE_CHECKING:
    from nexus.netd.v1 import netd_pb2
    from nexusctl.services import Services, Vmm

_AWAY_SECONDS = 15.0
"""What vmm may be away for while it makes a VM: it is started again at once when it was killed."""
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Wish:
    """The VM that is wanted: its name, its spec without the network, its port or None for none.

    `publications` are ports of the host that are forwarded to it from the beginning.
    """

    name: str
    spec: vmm_pb2.VmSpec
    port: netd_pb2.AttachPortRequest | None
    publications: tuple[netd_pb2.Publication, ...] = ()


async def create(services: Services, wish: Wish) -> vmm_pb2.Vm:
    """Return the new VM, with its port. Raises NexusError; nothing is left then.

    AlreadyExists (NAME_TAKEN): a VM has the name; no port is asked for. Unavailable (after 15 s) or
    DeadlineExceeded from CreateVm: it is unknown whether there is a VM, and a note says so.
    """
    await _refuse_taken(services, check_name("NAME", wish.name))
    vm_id = new_vm_id()
    request = vmm_pb2.CreateVmRequest(
        vm_id=vm_id, name=wish.name, spec=wish.spec, request_id=str(uuid4())
    )
    async with AsyncExitStack() as undo:
        if wish.port is not None:
            undo.push_async_callback(_undo_port, services, vm_id)
            port = await settled(attach(services, vm_id, wish.port))
            request.spec.network.CopyFrom(of_port(port))
        for publication in wish.publications:
            await settled(publish(services, vm_id, publication))  # goes with the port
        unknown = f"whether {wish.name} was made is unknown; running the same command again is safe"
        try:
            vm = await settled(_answered(services.vmm, request))
        except asyncio.CancelledError:
            try:
                await remove(services, vm_id)
            except (Unavailable, DeadlineExceeded) as error:
                undo.pop_all()
                note(f"{error.message}; {unknown}")
            raise
        except (Unavailable, DeadlineExceeded) as error:
            undo.pop_all()
            error.add_note(unknown)
            raise
        undo.pop_all()
        return vm


async def _answered(vmm: Vmm, request: vmm_pb2.CreateVmRequest) -> vmm_pb2.Vm:
    """Return the VM; where the answer was lost, ask again: it is the same one, by `request_id`."""
    now = asyncio.get_running_loop().time
    last = now() + _AWAY_SECONDS
    while True:
        try:
            return (await vmm.ask(vmm.stub.CreateVm, request, WRITE)).vm
        except Unavailable:
            if now() > last:
                raise
            await asyncio.sleep(_PAUSE_SECONDS)


async def _refuse_taken(services: Services, name: str) -> None:
    vmm = services.vmm
    try:
        answer = await vmm.ask(vmm.stub.GetVm, vmm_pb2.GetVmRequest(vm=name))
    except NotFound:
        return
    raise AlreadyExists("NAME_TAKEN", f"there is a VM named {name} already, {answer.vm.id}")


async def _undo_port(services: Services, vm_id: str) -> None:
    """Give the port back; a failure is noted, and does not hide the one that led here."""
    try:
        await give_back_port(services, vm_id)
    except NexusError as error:
        note(f"the port of {vm_id} was not given back: {error.message}")
