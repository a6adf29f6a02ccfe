"""nexusctl vm delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition
from nexus_rpc.vms import LIVE
from nexusctl import failure, views, vms
from nexusctl.confirm import agree, need_terminal
from nexusctl.lifecycle import delete, remove
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Delete the VM once the user agrees. What would refuse anyway is not asked about."""
    need_terminal(f"nexusctl vm delete {options.vm}", yes=options.yes)
    vm = await vms.get(services, options.vm)
    if vm.state in LIVE and not options.force:
        raise FailedPrecondition(
            "VM_LIVE", f"{vm.name} is {views.vm_state(vm.state)}: a live VM is not deleted"
        )
    question = f"Delete {vm.name} ({vm.id}) and its disk?"
    await agree(question, "nothing was deleted", yes=options.yes)
    async with progress(f"deleting {vm.name}"):
        if options.force:
            await remove(services, vm.id, None)
        else:
            await delete(services, vm.id)
    print(f"{vm.name} deleted")
    return failure.OK
