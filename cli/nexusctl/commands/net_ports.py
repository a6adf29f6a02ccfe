"""nexusctl net ports."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nexusctl import failure, net_views, paged, table, terminal
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the ports, oldest first."""
    async with progress("listing"):
        ports = await paged.ports(services, options.network)
    if options.json:
        print(json.dumps({"ports": [net_views.port(port) for port in ports]}, indent=2))
        return failure.OK
    rows = [
        [
            port.vm_name or port.vm_id,
            port.network,
            port.ipv4.partition("/")[0],
            port.tap,
            port.mac,
            _policy(net_views.policy(port.policy)),
        ]
        for port in ports
    ]
    text = table.render(
        ["VM", "NETWORK", "ADDRESS", "TAP", "MAC", "POLICY"],
        rows,
        columns=terminal.width(sys.stdout),
        styles={} if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="")
    return failure.OK


def _policy(shown: dict[str, object]) -> str:
    rules = shown["rules"]
    return f"{len(rules)} rules" if isinstance(rules, list) and rules else str(shown["mode"])
