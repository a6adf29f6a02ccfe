"""nexusctl vm run: a VM for one command."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError
from nexusctl import failure
from nexusctl.commands.vm_create import wish
from nexusctl.create import create
from nexusctl.execute import execute, piped_input
from nexusctl.lifecycle import boot, remove, wait_ready
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Create, start, run, and delete whatever came in between."""
    stdin = await piped_input()
    name = f"run-{secrets.token_hex(4)}"
    async with progress(f"creating {name}"):
        vm = await create(services, wish(options, name))
    try:
        async with progress(f"starting {name}"):
            await boot(services, name)
            await wait_ready(services, name, options.timeout)
        code = await execute(services, name, options, stdin)
    except NexusError as error:
        error.metadata["vm"] = "NAME"  # the way out cannot lead to a VM that is gone
        error.add_note(f"{name} does not stay; to look into a VM, make it by vm create")
        raise
    finally:
        deleted = await _delete(services, vm.id, name)
    return code if deleted else failure.OWN


async def _delete(services: Services, vm_id: str, name: str) -> bool:
    """Delete the VM, or say that it is left: that must not hide how the command ended."""
    try:
        async with progress(f"deleting {name}"):
            await remove(services, vm_id)
    except (NexusError, asyncio.CancelledError) as error:
        why = error.message if isinstance(error, NexusError) else "interrupted"
        left = failure.Failure(
            f"{name} was not deleted: {why}", f"nexusctl vm delete {name} --force --yes"
        )
        failure.tell(left, sys.stderr)
        if isinstance(error, asyncio.CancelledError):
            raise
        return False
    return True
