"""nexusctl vm balloon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure, views
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Set how much memory the VM's balloon takes from its guest."""
    request = vmm_pb2.SetBalloonRequest(vm=options.vm, amount_mib=options.amount)
    vmm = services.vmm
    async with progress(f"setting the balloon of {options.vm}"):
        vm = (await vmm.ask(vmm.stub.SetBalloon, request, WRITE)).vm
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} is to give up {options.amount} MiB")
    return failure.OK
