"""nexusctl net published."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from nexusctl import failure, net_views, paged, publications, table, terminal
from nexusctl.names import Names
from nexusctl.progress import progress
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print what is forwarded, oldest first."""
    async with progress("listing"):
        vm_id = await identify(services, options.vm) if options.vm else ""
        found, names = await asyncio.gather(
            paged.publications(services, vm_id), Names.load(services)
        )
    if options.json:
        shown = [net_views.publication(publication) for publication in found]
        print(json.dumps({"publications": shown}, indent=2))
        return failure.OK
    text = table.render(
        ["HOST", "VM", "PORT"],
        [[publications.text(each), names.of(each.vm_id), str(each.guest_port)] for each in found],
        columns=terminal.width(sys.stdout),
        styles={} if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="")
    return failure.OK
