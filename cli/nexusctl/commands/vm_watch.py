"""nexusctl vm watch: how VMs change."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure, views
from nexusctl.services import SESSION
from nexusctl.stdio import Output
from nexusctl.terminal import note, printable

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the present, then each change as it happens, one a line, until interrupted."""
    vmm = services.vmm
    request = vmm_pb2.WatchVmsRequest(after_revision=options.after)
    output = Output()
    names: dict[str, str] = {}
    async with aclosing(vmm.stream(vmm.stub.WatchVms, request, SESSION)) as events:
        async for event in events:
            line = json.dumps(views.event(event)) if options.json else _line(event, names)
            if line:
                await output.write(f"{line}\n".encode())
    return failure.OK


def _line(event: vmm_pb2.WatchVmsResponse, names: dict[str, str]) -> str:
    """Return what people are told of the event, "" for what is noted; `names` are those told."""
    match event.WhichOneof("event"):
        case "vm":
            vm = event.vm
            names[vm.id] = vm.name
            state = "stopping" if vm.stopping else views.vm_state(vm.state)
            return printable("  ".join(filter(None, (vm.name, vm.id, state, vm.state_reason))))
        case "deleted_vm_id":
            vm_id = event.deleted_vm_id
            return printable(f"{names.pop(vm_id, '-')}  {vm_id}  deleted")
        case "synced":
            note(f"changes follow; --after {event.revision} would carry on here")
        case "missed":
            note("what was deleted meanwhile is not known any more: the present follows")
    return ""
