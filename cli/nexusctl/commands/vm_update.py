"""nexusctl vm update."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure, restart, ttl, views
from nexusctl.progress import progress
from nexusctl.services import WRITE
from nexusctl.sizes import set_sizes
from nexusctl.tags import once, retag

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
    if options.ttl:
        request.spec.ttl.CopyFrom(ttl.time_to_live(options.ttl))
        changed.append("ttl")
    if options.tags or options.untagged:
        changed.append("tags")
    if options.balloon:
        request.spec.balloon = options.balloon == "on"
        changed.append("balloon")
    if options.serial_input:
        request.spec.serial_input = options.serial_input == "on"
        changed.append("serial_input")
    if not changed:
        raise failure.Failure(
            "there is nothing to change", "nexusctl vm update --help", failure.USAGE
        )
    request.update_mask.paths.extend(changed)
    async with progress(f"changing {options.vm}"):
        vm = await _send(options, services, request)
    if options.json:
        print(json.dumps(views.vm(vm), indent=2))
    else:
        print(f"{vm.name} changed")
    return failure.OK


async def _send(
    options: Namespace, services: Services, request: vmm_pb2.UpdateVmRequest
) -> vmm_pb2.Vm:
    if "tags" in request.update_mask.paths:
        return await retag(services, request, once(options.tags), options.untagged)
    vmm = services.vmm
    return (await vmm.ask(vmm.stub.UpdateVm, request, WRITE)).vm
