"""nexusctl config list."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from nexus.vmm.v1 import settings_pb2
from nexusctl import config_views, failure, table, terminal
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print all settings by name."""
    vmm = services.vmm
    async with progress("asking vmm"):
        answer = await vmm.ask(vmm.settings.ListSettings, settings_pb2.ListSettingsRequest())
    if options.json:
        print(json.dumps(config_views.every(answer.version, answer.settings), indent=2))
        return failure.OK
    rows = [
        [one.name, one.value or "-", one.unit, one.default_value or "-", one.description]
        for one in answer.settings
    ]
    text = table.render(
        ["NAME", "VALUE", "UNIT", "DEFAULT", "MEANING"],
        rows,
        columns=terminal.width(sys.stdout),
        styles={} if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="")
    print(f"version {answer.version}")
    return failure.OK
