"""nexusctl net publish."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexusctl import failure, net_views, publications
from nexusctl.attach import publish
from nexusctl.progress import progress
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Forward the port, and say which."""
    wish = publications.parse("PORTS", options.ports)
    async with progress("forwarding"):
        made = await publish(services, await identify(services, options.vm), wish)
    if options.json:
        print(json.dumps(net_views.publication(made), indent=2))
    else:
        print(f"{publications.text(made)} -> {options.vm}:{made.guest_port}")
    return failure.OK
