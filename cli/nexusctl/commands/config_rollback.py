"""nexusctl config rollback."""

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
    """Bring a version back, and print what holds by it other than the defaults."""
    request = settings_pb2.RollbackSettingsRequest(request_id=str(uuid4()), version=options.version)
    vmm = services.vmm
    async with progress("changing settings"):
        answer = await vmm.ask(vmm.settings.RollbackSettings, request, WRITE)
    names = [one.name for one in answer.settings if one.value != one.default_value]
    config_views.show_change(answer.version, answer.settings, names, as_json=options.json)
    return failure.OK
