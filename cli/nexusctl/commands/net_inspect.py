"""nexusctl net inspect: a VM as netd knows it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, paged, sections
from nexusctl.names import Names
from nexusctl.progress import progress
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the VM's port with its counters, and the ways in."""
    netd = services.netd
    async with progress("asking netd"):
        vm_id = await identify(services, options.vm)
        answer = await netd.ask(netd.stub.GetPort, netd_pb2.GetPortRequest(vm_id=vm_id))
        links, publications, names = await asyncio.gather(
            paged.links(services, vm_id),
            paged.publications(services, vm_id),
            Names.load(services),
        )
    shown = net_views.port(answer.port)
    if options.json:
        shown["links"] = [net_views.link(link) for link in links]
        shown["publications"] = [net_views.publication(each) for each in publications]
        print(json.dumps(shown, indent=2))
        return failure.OK
    port_sections(shown)
    ways = {
        "links": [names.link(link) for link in links],
        "published": [names.publication(each) for each in publications],
    }
    if links or publications:
        sections.show("ways in and out", ways)
    return failure.OK


def port_sections(shown: dict[str, Any]) -> None:
    """Print what `net_views.port` gave."""
    policy = shown["policy"]
    parts = {key: shown[key] for key in ("limits", "counters")}
    sections.show("port", {key: shown[key] for key in shown if key not in {"policy", *parts}})
    print("policy" if policy["own"] else "policy, the network's")
    for line in net_views.policy_lines(policy):
        print(f"  {line}")
    if any(parts["limits"].values()):
        sections.show("limits", parts["limits"])
    sections.show("counters", parts["counters"])
