"""nexusctl net link."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure
from nexusctl.linking import wanted
from nexusctl.names import ports
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Make the links."""
    netd = services.netd
    async with progress("linking"):
        for link in await wanted(options, services):
            request = netd_pb2.CreateLinkRequest(request_id=str(uuid4()), link=link)
            made = (await netd.ask(netd.stub.CreateLink, request, WRITE)).link
            print(f"{options.source} -> {options.target} {ports(made)}", flush=True)
    return failure.OK
