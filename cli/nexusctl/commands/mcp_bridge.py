"""nexusctl mcp-bridge: what an MCP client starts as its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl import failure
from nexusctl.bridge import bridge
from nexusctl.stdio import Input, Output

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Carry one session between standard input and output and the guest."""
    await bridge(services.gateway, options.vm, Input(), Output())
    return failure.OK
