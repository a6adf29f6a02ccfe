"""nexusctl vm create."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import invalid_field
from nexusctl import attach, failure, views
from nexusctl.create import Wish, create
from nexusctl.progress import progress
from nexusctl.publications import parse

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


_SIZES = (
    ("vcpu_count", "cpus", "1 to 32"),
    ("memory_mib", "memory", "80 to 65536"),
    ("disk_mib", "disk", "16 to 1048576"),
)
"""Fields of VmSpec, the options for them, and their bounds as vmm.proto has them."""


def wish(options: Namespace, name: str) -> Wish:
    """Return the VM that the options ask for. Raises InvalidArgument and Failure."""
    spec = vmm_pb2.VmSpec(image=options.image, kernel=options.kernel)
    for field, option, bounds in _SIZES:
        value = getattr(options, option)
        if value == 0:  # on the wire, 0 would ask for the default
            raise invalid_field(field, value, bounds)
        if value is not None:
            setattr(spec, field, value)
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
