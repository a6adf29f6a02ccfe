"""nexusctl config history."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nexus.vmm.v1 import settings_pb2
from nexusctl import config_views, failure
from nexusctl.progress import progress
from nexusctl.terminal import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the versions that are kept, the newest first."""
    vmm = services.vmm
    request = settings_pb2.ListSettingVersionsRequest()
    async with progress("asking vmm"):
        answer = await vmm.ask(vmm.settings.ListSettingVersions, request)
    versions = [config_views.version(version) for version in answer.versions]
    if options.json:
        print(json.dumps({"versions": versions}, indent=2))
        return failure.OK
    for version in versions:
        _show(version)
    return failure.OK


def _show(version: dict[str, Any]) -> None:
    back = version["rolled_back_to"]
    what = "" if back is None else f"  back to {back or 'the defaults'}"
    print(f"version {version['version']}  {version['time']}{what}")
    for change in version["changes"]:
        old, new = (change[key] or "nothing" for key in ("old_value", "new_value"))
        print(printable(f"  {change['name']}: {old} -> {new}"))
