"""nexusctl net denials: what VMs were refused."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, protocols
from nexusctl.names import Names
from nexusctl.services import READ, SESSION
from nexusctl.stdio import Output
from nexusctl.terminal import note, printable
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the last ones, and go on as they happen if that was asked for: one a line."""
    netd = services.netd
    request = netd_pb2.WatchDenialsRequest(last=options.last, follow=options.follow)
    if options.vm:
        request.vm_id = await identify(services, options.vm)
    names = Names({}) if options.json else await Names.load(services)
    seconds = SESSION if options.follow else READ
    output = Output()
    async with aclosing(netd.stream(netd.stub.WatchDenials, request, seconds)) as answers:
        async for answer in answers:
            if answer.missed:
                note(f"{answer.missed} denials were lost here: they came too fast")
            if answer.HasField("denial"):
                shown = net_views.denial(answer.denial)
                text = json.dumps(shown) if options.json else _line(shown, names)
                await output.write(f"{text}\n".encode())
    return failure.OK


def _line(shown: dict[str, Any], names: Names) -> str:
    port = str(shown["port"] or "")
    where = protocols.join_host(shown["address"], port) if shown["address"] else ""
    parts = [
        str(shown["time"]),
        names.of(shown["vm_id"]),
        shown["protocol"],
        where,
        f"({shown['domain']})" if shown["domain"] and where else shown["domain"],
        f"refused: {shown['rule']}",
        f"x{shown['count']}" if shown["count"] > 1 else "",
    ]
    return printable("  ".join(part for part in parts if part))
