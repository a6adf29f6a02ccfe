"""nexusctl vm start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexusctl import failure, views, vms
from nexusctl.lifecycle import start, wait_ready
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Boot the VM and, unless told otherwise, wait for its guest."""
    async with progress(f"starting {options.vm}") as shown:
        vm = await start(services, options.vm)
        if not options.no_wait:
            shown.text = f"waiting for the guest of {options.vm}"
            await wait_ready(services, options.vm, options.timeout)
            vm = await vms.get(services, vm.id)
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} is {'running' if options.no_wait else 'ready'}")
    return failure.OK
