"""nexusctl vm update."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure, restart, views
from nexusctl.progress import progress
from nexusctl.services import WRITE
from nexusctl.sizes import set_sizes

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Change what the options name, and nothing else."""
    request = vmm_pb2.UpdateVmRequest(vm=options.vm, request_id=str(uuid4()), etag=options.etag)
    changed = set_sizes(request.spec, options)
    if options.restart:
        request.spec.restart.CopyFrom(restart.policy(options.restart))
        changed.append("restart")
    if not changed:
        raise failure.Failure(
            "there is nothing to change", "nexusctl vm update --help", failure.USAGE
        )
    request.update_mask.paths.extend(changed)
    async with progress(f"changing {options.vm}"):
        vmm = services.vmm
        vm = (await vmm.ask(vmm.stub.UpdateVm, request, WRITE)).vm
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} changed")
    return failure.OK
