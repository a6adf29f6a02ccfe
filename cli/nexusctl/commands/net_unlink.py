"""nexusctl net unlink."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, paged
from nexusctl.linking import wanted
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Take the links that are named away, or all from one VM to the other."""
    netd = services.netd
    async with progress("unlinking"):
        links = await wanted(options, services)
        if not options.ports:
            ends = links[0]
            links = [
                link
                for link in await paged.links(services, ends.from_vm_id)
                if (link.from_vm_id, link.to_vm_id) == (ends.from_vm_id, ends.to_vm_id)
            ]
        deleted = 0
        for link in links:
            request = netd_pb2.DeleteLinkRequest(request_id=str(uuid4()), link=link)
            deleted += (await netd.ask(netd.stub.DeleteLink, request, WRITE)).deleted
    what = f"from {options.source} to {options.target}"
    print(f"{deleted} links {what} taken away" if deleted else f"there was no such link {what}")
    return failure.OK
