"""nexusctl net delete."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure
from nexusctl.confirm import agree, need_terminal
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Remove the network once the user agrees. What would refuse anyway is not asked about."""
    name = options.network
    need_terminal(f"nexusctl net delete {name}", yes=options.yes)
    netd = services.netd
    known = await netd.ask(netd.stub.GetNetwork, netd_pb2.GetNetworkRequest(name=name))
    question = f"Remove {name} ({known.network.subnet} on {known.network.bridge})?"
    await agree(question, "nothing was removed", yes=options.yes)
    request = netd_pb2.DeleteNetworkRequest(request_id=str(uuid4()), name=name)
    async with progress(f"removing {name}"):
        await netd.ask(netd.stub.DeleteNetwork, request, WRITE)
    print(f"{name} removed")
    return failure.OK
