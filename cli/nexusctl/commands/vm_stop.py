"""nexusctl vm stop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexusctl import failure, views
from nexusctl.lifecycle import stop
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Stop the VM; it is gone from the host's processes when this returns."""
    async with progress(f"stopping {options.vm}"):
        vm = await stop(services, options.vm, options.grace)
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} is stopped")
    return failure.OK
