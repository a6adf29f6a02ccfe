"""nexusctl vm exec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl.execute import execute, piped_input

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Run the command and return its exit code."""
    return await execute(services, options.vm, options, await piped_input())
