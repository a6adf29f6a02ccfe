"""nexusctl config set."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.vmm.v1 import settings_pb2
from nexusctl import config_views, failure
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Change what is named, all or none."""
    values = dict(options.values)
    if len(values) != len(options.values):
        raise failure.Failure(
            "a setting is named twice", "nexusctl config set --help", failure.USAGE
        )
    request = settings_pb2.UpdateSettingsRequest(
        request_id=str(uuid4()), values=values, expected_version=options.expect
    )
    vmm = services.vmm
    async with progress("changing settings"):
        answer = await vmm.ask(vmm.settings.UpdateSettings, request, WRITE)
    config_views.show_change(answer.version, answer.settings, values, as_json=options.json)
    return failure.OK
