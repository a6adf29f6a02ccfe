"""nexusctl vm list."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nexusctl import failure, table, terminal, views
from nexusctl.progress import progress
from nexusctl.vms import every

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the VMs, oldest first."""
    async with progress("listing"):
        vms = [vm async for vm in every(services)]
    if options.json:
        print(json.dumps({"vms": [views.vm(vm) for vm in vms]}, indent=2))
        return failure.OK
    if options.quiet:
        print("".join(f"{vm.id}\n" for vm in vms), end="")
        return failure.OK
    now = datetime.now(UTC)
    rows = []
    for vm in vms:
        shown = views.vm(vm)
        age = views.age(vm.create_time, now)
        address = shown["address"] or "-"
        rows.append([vm.name, vm.id, shown["state"], address, vm.spec.image, _restart(shown), age])
    text = table.render(
        ["NAME", "ID", "STATE", "ADDRESS", "IMAGE", "RESTART", "AGE"],
        rows,
        columns=terminal.width(sys.stdout),
        styles=views.STYLES if terminal.coloured(sys.stdout) else None,
    )
    print(text, end="")
    return failure.OK


def _restart(shown: dict[str, Any]) -> str:
    """Return the policy, and how often it started the VM."""
    policy: str = shown["spec"]["restart"]
    return f"{policy} ({shown['restarts']})" if shown["restarts"] else policy
