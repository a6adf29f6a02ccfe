"""nexusctl vm console."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition
from nexusctl import failure, vms
from nexusctl.console import Console, raw_terminal
from nexusctl.stdio import STDIN

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Put the terminal on the VM's console until the user leaves or the VM is deleted."""
    if not os.isatty(STDIN):
        raise failure.Failure(
            "standard input is no terminal", "nexusctl vm logs --follow shows it", failure.USAGE
        )
    vm = await vms.get(services, options.vm)
    if not vm.spec.serial_input:
        raise FailedPrecondition("NO_SERIAL_INPUT", f"{vm.name} takes no serial input", vm=vm.name)
    print(f"[console of {vm.name}; ~. at the beginning of a line leaves]", file=sys.stderr)
    with raw_terminal():
        left = await Console(services, vm.id).run()
    end = "left" if left else f"{vm.name} was deleted"
    print(f"\n[{end}]", file=sys.stderr)
    return failure.OK
