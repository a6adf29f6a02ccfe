"""nexusctl vm create."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexusctl import attach, failure, restart, ttl, views
from nexusctl.create import Wish, create
from nexusctl.progress import progress
from nexusctl.publications import parse
from nexusctl.sizes import set_sizes
from nexusctl.tags import once

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


def wish(options: Namespace, name: str) -> Wish:
    """Return the VM that the options ask for. Raises InvalidArgument and Failure."""
    spec = vmm_pb2.VmSpec(image=options.image, kernel=options.kernel)
    set_sizes(spec, options)
    spec.tags.update(once(options.tags))
    if options.ttl:
        spec.ttl.CopyFrom(ttl.time_to_live(options.ttl))
    if getattr(options, "restart", None):  # vm run has none
        spec.restart.CopyFrom(restart.policy(options.restart))
    spec.balloon = getattr(options, "balloon", False)
    spec.serial_input = getattr(options, "serial_input", False)
    publications = [parse("--publish", text) for text in options.publish]
    port = attach.wish(options)
    if not options.no_network:
        return Wish(name, spec, port, tuple(publications))
    if publications or port != netd_pb2.AttachPortRequest():
        raise failure.Failure(
            "without a network there is none to set up", "leave --no-network out", failure.USAGE
        )
    return Wish(name, spec, None)


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
