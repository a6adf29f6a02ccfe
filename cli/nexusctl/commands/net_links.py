"""nexusctl net links."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from nexusctl import failure, net_views, paged, table, terminal
from nexusctl.names import Names, ports
from nexusctl.progress import progress
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the links, oldest first."""
    async with progress("listing"):
        vm_id = await identify(services, options.vm) if options.vm else ""
        links, names = await asyncio.gather(paged.links(services, vm_id), Names.load(services))
    if options.json:
        print(json.dumps({"links": [net_views.link(link) for link in links]}, indent=2))
        return failure.OK
    text = table.render(
        ["FROM", "TO", "PORTS"],
        [[names.of(link.from_vm_id), names.of(link.to_vm_id), ports(link)] for link in links],
        columns=terminal.width(sys.stdout),
        styles={} if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="")
    return failure.OK
