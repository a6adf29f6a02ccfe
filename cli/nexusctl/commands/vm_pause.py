"""nexusctl vm pause."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexusctl import failure, views
from nexusctl.lifecycle import pause
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Halt the VM."""
    async with progress(f"pausing {options.vm}"):
        vm = await pause(services, options.vm)
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} is paused")
    return failure.OK
