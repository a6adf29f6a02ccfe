"""nexusctl net attach: a port for a VM whose port was given up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition
from nexus_rpc.vms import LIVE
from nexusctl import attach, failure, net_views, vms
from nexusctl.interfaces import renew
from nexusctl.progress import progress
from nexusctl.settled import settled

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Attach the port, and give the VM the interface that it makes.

    Safe to repeat: a port that is there is kept, and the VM's interface compared with it.
    """
    wish = attach.wish(options)
    async with progress(f"attaching {options.vm}"):
        vm = await vms.get(services, options.vm)
        if not vm.spec.HasField("network"):
            raise FailedPrecondition("NO_INTERFACE", f"{vm.name} was made without a network")
        if vm.state in LIVE:
            raise FailedPrecondition(
                "VM_STATE", f"{vm.name} is live: its TAP cannot be changed; stop it first"
            )
        port = await settled(attach.attach(services, vm.id, wish))
        await settled(renew(services, vm, port))
    if options.json:
        print(json.dumps(net_views.port(port), indent=2))
    else:
        print(f"{vm.name} is at {port.ipv4} on {port.network}")
    return failure.OK
