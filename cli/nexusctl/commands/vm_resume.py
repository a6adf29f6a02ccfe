"""nexusctl vm resume."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexusctl import failure, views
from nexusctl.lifecycle import resume
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Let the VM go on; its guest is heard soon after."""
    async with progress(f"resuming {options.vm}"):
        vm = await resume(services, options.vm)
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} is resumed")
    return failure.OK
