"""nexusctl net list."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, table, terminal
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the networks, by name, and what stands in the way of each."""
    netd = services.netd
    async with progress("listing"):
        answer = await netd.ask(netd.stub.ListNetworks, netd_pb2.ListNetworksRequest())
    shown = [net_views.network(network) for network in answer.networks]
    if options.json:
        print(json.dumps({"networks": shown}, indent=2))
        return failure.OK
    rows = [
        [
            network["name"],
            network["bridge"],
            network["subnet"],
            network["ipv6_subnet"] or "-",
            network["default_policy"]["mode"],
            str(network["ports"]),
        ]
        for network in shown
    ]
    text = table.render(
        ["NAME", "BRIDGE", "SUBNET", "IPV6", "POLICY", "PORTS"],
        rows,
        columns=terminal.width(sys.stdout),
        styles={} if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="", flush=True)
    for network in shown:
        for warning in network["warnings"]:
            terminal.note(f"{network['name']}: {warning}")
    return failure.OK
