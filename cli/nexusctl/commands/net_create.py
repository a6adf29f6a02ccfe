"""nexusctl net create."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, policies, protocols
from nexusctl.progress import progress
from nexusctl.services import WRITE
from nexusctl.terminal import note

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


def defaults(options: Namespace) -> netd_pb2.Network:
    """Return a network with what the options say of its ports. Raises Failure (USAGE)."""
    return netd_pb2.Network(
        name=options.network,
        dns=options.dns,
        search=options.search,
        default_policy=policies.of_options(options.policy, options.rules),
        default_limits=policies.limits_of_options(options),
        host_ports=[_host_port(text) for text in options.host_ports],
    )


def _host_port(text: str) -> netd_pb2.HostPort:
    port, protocol = protocols.port_with_protocol("--host-port", text)
    return netd_pb2.HostPort(protocol=protocols.WORDS[protocol], port=port)


async def run(options: Namespace, services: Services) -> int:
    """Make the network, and say where it is."""
    network = defaults(options)
    network.subnet, network.ipv6_subnet = options.subnet, options.ipv6
    network.bridge, network.mtu = options.bridge, options.mtu
    netd = services.netd
    request = netd_pb2.CreateNetworkRequest(request_id=str(uuid4()), network=network)
    async with progress(f"creating {options.network}"):
        made = (await netd.ask(netd.stub.CreateNetwork, request, WRITE)).network
    if options.json:
        print(json.dumps(net_views.network(made), indent=2))
    else:
        print(f"{made.name} created: {made.subnet} on {made.bridge}", flush=True)
        for warning in made.warnings:
            note(warning)
    return failure.OK
