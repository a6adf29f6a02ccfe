"""nexusctl vm cp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexusctl import failure
from nexusctl.copy import copy, place

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Copy one file."""
    source, target = place(options.source), place(options.target)
    options.vm = source.vm or target.vm
    await copy(services, source, target)
    return failure.OK
