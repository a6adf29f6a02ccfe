"""nexusctl version: of itself and of the service that VMs run with."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the versions. nexusctl's own is printed though vmm cannot be asked."""
    own = metadata.version("nexusctl")
    if not options.json:
        print(f"nexusctl     {own}", flush=True)
    vmm = services.vmm
    async with progress("asking vmm"):
        info = await vmm.ask(vmm.stub.GetInfo, vmm_pb2.GetInfoRequest())
    if options.json:
        shown = {
            "nexusctl": own,
            "vmm": info.version,
            "firecracker": info.firecracker_version,
            "images": list(info.images),
            "kernels": list(info.kernels),
        }
        print(json.dumps(shown, indent=2))
    else:
        print(f"vmm          {info.version}")
        print(f"firecracker  {info.firecracker_version or 'known after the first boot'}")
        print(f"images       {', '.join(info.images) or 'none'}")
        print(f"kernels      {', '.join(info.kernels) or 'none'}")
    return failure.OK
