"""nexusctl setup-firewall: lets guests through other firewalls of this host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexus_rpc.errors import NexusError
from nexusctl import failure, protocols
from nexusctl.firewall import plan
from nexusctl.firewall.host import Guests, ThisHost
from nexusctl.progress import progress
from nexusctl.terminal import note

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from nexusctl.services import Services

_RESOLVER_PORTS = (("udp", 7753), ("tcp", 7753))
"""Where netd leads guests' DNS to: to other tables' input chains it comes with this port."""
_DEFAULT_BRIDGE = "nexbr0"


async def run(options: Namespace, services: Services) -> int:
    """Print the commands, or run them and see that nothing is left to do."""
    if not services.is_here:
        raise failure.Failure(
            "setup-firewall is about the host that it runs on, and the endpoint is another",
            "run it there, as root",
            failure.USAGE,
        )
    if os.geteuid() != 0:
        raise failure.Failure("only root sees the host's firewalls", "sudo nexusctl setup-firewall")
    host = ThisHost()
    async with progress("looking at the firewalls") as shown:
        guests = await _guests(services)
        findings = await plan.look(host, guests)
        if findings and options.apply:
            shown.text = "changing them"
            await plan.apply(host, findings)
            left = await plan.look(host, guests)
    if not findings:
        print("# Nothing stands in the way of guests.")
        return failure.OK
    print(plan.script(findings), end="", flush=True)
    if options.apply and left:
        raise failure.Failure("guests are stopped still", "nexusctl setup-firewall --dry-run")
    if options.apply:
        note("done: nothing stands in the way of guests any more")
    return failure.OK


async def _guests(services: Services) -> Guests:
    """Return what netd says of its networks, the defaults where it does not answer."""
    netd = services.netd
    try:
        answer = await netd.ask(netd.stub.ListNetworks, netd_pb2.ListNetworksRequest())
    except NexusError as error:
        note(f"{error.message}; this is for the bridge {_DEFAULT_BRIDGE} only")
        return Guests((_DEFAULT_BRIDGE,), ipv6=False, ports=_RESOLVER_PORTS)
    return of_networks(answer.networks)


def of_networks(networks: Sequence[netd_pb2.Network]) -> Guests:
    """Return whom to let pass."""
    ports = {
        (protocols.word(port.protocol), port.port)
        for network in networks
        for port in network.host_ports
    }
    return Guests(
        tuple(network.bridge for network in networks),
        ipv6=any(network.ipv6_subnet for network in networks),
        ports=(*_RESOLVER_PORTS, *sorted(ports)),
    )
