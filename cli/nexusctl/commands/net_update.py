"""nexusctl net update."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views
from nexusctl.commands.net_create import defaults
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


_FIELDS = {
    "dns": "dns",
    "search": "search",
    "host-ports": "host_ports",
    "policy": "default_policy",
    "limits": "default_limits",
}
"""What --clear takes, and the field of Network that it means."""


async def run(options: Namespace, services: Services) -> int:
    """Change the network."""
    netd = services.netd
    request = netd_pb2.UpdateNetworkRequest(
        request_id=str(uuid4()),
        network=defaults(options),
        clear=[_FIELDS[word] for word in options.clear],
    )
    given = {field.name for field, _ in request.network.ListFields()} - {"name"}
    if not given and not request.clear:
        raise failure.Failure(
            "nothing is to be changed", "nexusctl net update --help", failure.USAGE
        )
    for word in options.clear:
        if _FIELDS[word] in given:
            raise failure.Failure(
                f"--clear {word} and a new value exclude each other",
                "leave --clear out: a new value takes the place of the old one",
                failure.USAGE,
            )
    async with progress(f"changing {options.network}"):
        changed = (await netd.ask(netd.stub.UpdateNetwork, request, WRITE)).network
    if options.json:
        print(json.dumps(net_views.network(changed), indent=2))
    else:
        print(f"{changed.name} changed")
    return failure.OK
