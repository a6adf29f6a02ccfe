"""nexusctl net watch: what happens to networks and ports."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views
from nexusctl.services import SESSION
from nexusctl.stdio import Output
from nexusctl.terminal import note, printable
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print each event as it happens, one a line, until interrupted."""
    netd = services.netd
    request = netd_pb2.WatchNetworkRequest()
    if options.vm:
        request.vm_id = await identify(services, options.vm)
    output = Output()
    async with aclosing(netd.stream(netd.stub.WatchNetwork, request, SESSION)) as events:
        async for event in events:
            if event.missed:
                note(f"{event.missed} events were lost here: they came too fast")
            if not event.what:
                continue
            shown = net_views.event(event)
            parts = (shown[key] for key in ("time", "what", "network", "vm_id", "details"))
            line = printable("  ".join(str(part) for part in parts if part))
            await output.write(f"{json.dumps(shown) if options.json else line}\n".encode())
    return failure.OK
