"""nexusctl vm delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition
from nexus_rpc.vms import LIVE
from nexusctl import failure, views, vms
from nexusctl.arguments import GRACE_SECONDS
from nexusctl.lifecycle import delete, remove
from nexusctl.progress import progress
from nexusctl.stdio import Input

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Delete the VM once the user agrees. What would refuse anyway is not asked about."""
    if not options.yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise failure.Failure(
            "without a terminal to ask on, vm delete needs --yes",
            f"nexusctl vm delete {options.vm} --yes",
            failure.USAGE,
        )
    vm = await vms.get(services, options.vm)
    if vm.state in LIVE and not options.force:
        raise FailedPrecondition(
            "VM_LIVE", f"{vm.name} is {views.vm_state(vm.state)}: a live VM is not deleted"
        )
    if not options.yes and not await _agreed(f"Delete {vm.name} ({vm.id}) and its disk? [y/N] "):
        raise failure.Failure("nothing was deleted")
    async with progress(f"deleting {vm.name}"):
        if options.force:
            await remove(services, vm.id, GRACE_SECONDS)
        else:
            await delete(services, vm.id)
    print(f"{vm.name} deleted")
    return failure.OK


async def _agreed(question: str) -> bool:
    sys.stderr.write(question)
    sys.stderr.flush()
    answer = b""
    async for chunk in Input().chunks():
        answer += chunk
        if b"\n" in answer:
            break
    return answer.strip().lower() in {b"y", b"yes"}
