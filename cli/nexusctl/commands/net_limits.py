"""nexusctl net limits: the rates of a VM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, policies
from nexusctl.progress import progress
from nexusctl.services import WRITE
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


_WORDS = {
    "egress_bytes": "bytes/s from the guest",
    "ingress_bytes": "bytes/s to the guest",
    "egress_packets": "packets/s from the guest",
    "ingress_packets": "packets/s to the guest",
    "connections": "connections",
}


async def run(options: Namespace, services: Services) -> int:
    """Show the limits that hold, or set them: those that are not given become the network's."""
    limits = policies.limits_of_options(options)
    netd = services.netd
    async with progress("asking netd"):
        vm_id = await identify(services, options.vm)
        if limits is None:
            request = netd_pb2.GetPortRequest(vm_id=vm_id)
            port = (await netd.ask(netd.stub.GetPort, request)).port
        else:
            change = netd_pb2.SetLimitsRequest(request_id=str(uuid4()), vm_id=vm_id, limits=limits)
            port = (await netd.ask(netd.stub.SetLimits, change, WRITE)).port
    shown = net_views.limits(port.limits)
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        for field, words in _WORDS.items():
            print(f"{shown[field] or 'any':>14}  {words}")
    return failure.OK
