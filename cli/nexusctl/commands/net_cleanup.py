"""nexusctl net cleanup: nothing of Nexus in the kernel's network."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, sections
from nexusctl.confirm import agree, need_terminal
from nexusctl.progress import progress
from nexusctl.services import WRITE

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Remove everything once the user agrees, and say what was removed."""
    need_terminal("nexusctl net cleanup", yes=options.yes)
    question = "Remove every port, link, forwarding, bridge and rule of Nexus?"
    await agree(question, "nothing was removed", yes=options.yes)
    netd = services.netd
    request = netd_pb2.CleanupNetworkRequest(request_id=str(uuid4()), force=options.force)
    async with progress("cleaning up"):
        removed = await netd.ask(netd.stub.CleanupNetwork, request, WRITE)
    shown = {
        "TAPs": list(removed.taps),
        "bridges": list(removed.bridges),
        "tables": list(removed.tables),
        "leases": removed.leases,
        "links and forwardings": removed.ways,
    }
    if any(shown.values()):
        sections.show("removed", shown)
    else:
        print("there was nothing to remove")
    return failure.OK
