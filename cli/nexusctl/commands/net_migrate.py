"""nexusctl net migrate: another subnet for a network, and its VMs told."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexus_rpc.errors import NexusError, invalid_field
from nexus_rpc.vms import LIVE
from nexusctl import failure, paged, vms
from nexusctl.confirm import agree, need_terminal
from nexusctl.interfaces import renew
from nexusctl.progress import progress
from nexusctl.services import WRITE
from nexusctl.terminal import note

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Move the network, then compare each VM's interface with its port, and renew what differs.

    Whatever ends this in between, running it again does the rest.
    """
    name, subnet = options.network, _subnet(options.subnet)
    need_terminal(f"nexusctl net migrate {name} {subnet}", yes=options.yes)
    netd = services.netd
    known = await netd.ask(netd.stub.GetNetwork, netd_pb2.GetNetworkRequest(name=name))
    if known.network.subnet != subnet:
        question = f"Move {name} from {known.network.subnet} to {subnet}, with all its VMs?"
        await agree(question, "nothing was moved", yes=options.yes)
        request = netd_pb2.MigrateNetworkRequest(request_id=str(uuid4()), name=name, subnet=subnet)
        async with progress(f"moving {name}"):
            await netd.ask(netd.stub.MigrateNetwork, request, WRITE)
    told, failed = await _tell(services, name)
    print(f"{name} is {subnet}; {told} VMs got their new address", flush=True)
    if failed:
        raise failure.Failure(
            f"{failed} VMs did not", f"nexusctl net migrate {name} {subnet} --yes, once more"
        )
    return failure.OK


def _subnet(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text))
    except ValueError as error:
        raise invalid_field("SUBNET", text, f"{error}") from None


async def _tell(services: Services, network: str) -> tuple[int, int]:
    """Renew the interfaces, and return how many were, and how many could not be."""
    told = failed = 0
    async with progress("telling the VMs") as shown:
        known = {vm.id: vm async for vm in vms.every(services)}
        ports = [port for port in await paged.ports(services, network) if port.vm_id in known]
        for number, port in enumerate(ports, 1):
            vm = known[port.vm_id]
            shown.text = f"telling the VMs: {number} of {len(ports)}"
            try:
                told += vm.spec.HasField("network") and await renew(services, vm, port)
            except NexusError as error:
                failed += 1
                state = "live" if vm.state in LIVE else "at rest"
                note(f"{vm.name} ({state}) was not told: {error.message}")
    return told, failed
