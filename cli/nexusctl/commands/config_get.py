"""nexusctl config get."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus.vmm.v1 import settings_pb2
from nexusctl import config_views, failure, terminal
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the value alone, or all that is known of the setting as JSON."""
    vmm = services.vmm
    async with progress("asking vmm"):
        answer = await vmm.ask(vmm.settings.ListSettings, settings_pb2.ListSettingsRequest())
    for setting in answer.settings:
        if setting.name == options.name:
            break
    else:
        raise failure.Failure(
            f"there is no setting {options.name!r}",
            "nexusctl config list shows what there is",
            failure.NOT_FOUND,
        )
    if options.json:
        print(json.dumps(config_views.setting(setting), indent=2))
    else:
        print(terminal.printable(setting.value))
    return failure.OK
