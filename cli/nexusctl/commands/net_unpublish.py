"""nexusctl net unpublish."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexusctl import failure, publications
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """End the forwarding."""
    request = publications.parse_host("PORT", options.port)
    request.request_id = str(uuid4())
    netd = services.netd
    async with progress("ending it"):
        answer = await netd.ask(netd.stub.UnpublishPort, request, WRITE)
    done = "is forwarded no more" if answer.unpublished else "was not forwarded"
    print(f"{options.port} {done}")
    return failure.OK
