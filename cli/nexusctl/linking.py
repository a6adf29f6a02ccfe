"""Links between VMs as options ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2
from nexusctl import protocols
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def wanted(options: Namespace, services: Services) -> list[netd_pb2.Link]:
    """Return the links that the options name: one for each protocol, one of all for no port.

    Raises Failure (USAGE) and NexusError.
    """
    ways = parse(options.ports)
    ends = {
        "from_vm_id": await identify(services, options.source),
        "to_vm_id": await identify(services, options.target),
    }
    return [
        netd_pb2.Link(protocol=protocols.WORDS[protocol], ports=ports, **ends)
        for protocol, ports in ways.items()
    ]


def parse(texts: list[str]) -> dict[str, list[int]]:
    """Return the ports of each protocol; no ports are all of it. Raises Failure (USAGE)."""
    if not texts:
        return {"any": []}
    ways: dict[str, list[int]] = {}
    everything = set()
    for text in texts:
        if text.lower() in ("tcp", "udp", "icmp"):
            everything.add(text.lower())
            ways[text.lower()] = []
            continue
        port, protocol = protocols.port_with_protocol("--port", text)
        ports = ways.setdefault(protocol, [])
        if protocol not in everything and port not in ports:
            ports.append(port)
    return ways
