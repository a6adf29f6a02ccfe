"""nexusctl net policy: what a VM may reach."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from nexus.netd.v1 import netd_pb2
from nexusctl import failure, net_views, policies
from nexusctl.progress import progress
from nexusctl.services import WRITE
from nexusctl.stdio import Input
from nexusctl.terminal import printable
from nexusctl.vms import identify

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


_MAX_FILE = 1 << 20


async def run(options: Namespace, services: Services) -> int:
    """Show the policy, or set it and say what was cut."""
    policy = await _wanted(options)
    netd = services.netd
    async with progress("asking netd"):
        vm_id = await identify(services, options.vm)
        if policy is None:
            request = netd_pb2.GetPortRequest(vm_id=vm_id)
            port, cut = (await netd.ask(netd.stub.GetPort, request)).port, 0
        else:
            change = netd_pb2.SetPolicyRequest(request_id=str(uuid4()), vm_id=vm_id, policy=policy)
            answer = await netd.ask(netd.stub.SetPolicy, change, WRITE)
            port, cut = answer.port, answer.cut
    shown = net_views.port(port)["policy"]
    if options.json:
        print(json.dumps(shown | ({} if policy is None else {"cut": cut}), indent=2))
        return failure.OK
    if not shown["own"]:
        print(f"as {port.network}:")
    for line in net_views.policy_lines(shown):
        print(printable(line))
    sys.stdout.flush()
    if cut:
        print(f"{cut} connections were cut", file=sys.stderr)
    return failure.OK


async def _wanted(options: Namespace) -> netd_pb2.EgressPolicy | None:
    """Return the policy that is to be set, None to show it. Raises Failure (USAGE)."""
    if options.file and (options.mode or options.rules):
        raise failure.Failure(
            "--file and a policy on the command line exclude each other",
            "leave one of them out",
            failure.USAGE,
        )
    if options.file:
        return policies.of_text(options.file, await _read(options.file))
    if options.mode == "show" and not options.rules:
        return None
    return policies.of_options(options.mode, options.rules)


async def _read(name: str) -> str:
    if name != "-":
        path = Path(name)
        if (await asyncio.to_thread(path.stat)).st_size > _MAX_FILE:
            raise failure.Failure(f"{name} is larger than 1 MiB", "", failure.USAGE)
        data = await asyncio.to_thread(path.read_bytes)
    else:
        data = b""
        async for chunk in Input().chunks():
            data += chunk
            if len(data) > _MAX_FILE:
                raise failure.Failure("standard input is larger than 1 MiB", "", failure.USAGE)
    return data.decode("utf-8", "replace")
