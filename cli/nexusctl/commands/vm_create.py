"""nexusctl vm create."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure, views
from nexusctl.create import Wish, create
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


def wish(options: Namespace, name: str) -> Wish:
    """Return the VM that the options ask for."""
    spec = vmm_pb2.VmSpec(
        image=options.image,
        kernel=options.kernel,
        vcpu_count=options.cpus,
        memory_mib=options.memory,
        disk_mib=options.disk,
    )
    return Wish(name, spec, network=not options.no_network)


async def run(options: Namespace, services: Services) -> int:
    """Make the VM and say how it can be reached."""
    async with progress(f"creating {options.vm}"):
        vm = await create(services, wish(options, options.vm))
    shown = views.vm(vm)
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        print(f"{vm.name} created: id {vm.id}, {shown['address'] or 'no network'}")
    return failure.OK
