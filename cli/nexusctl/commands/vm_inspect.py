"""nexusctl vm inspect: one VM as all three services know it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from nexus.gateway.v1 import gateway_pb2
from nexus.netd.v1 import netd_pb2
from nexus_rpc.errors import FailedPrecondition, NexusError, NotFound
from nexusctl import failure, net_views, sections, terminal, views, vms
from nexusctl.commands.net_inspect import port_sections
from nexusctl.progress import progress

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print what is known; vmm must answer, netd and gateway may be down."""
    async with progress("asking the services"):
        vm = await vms.get(services, options.vm)
        missing: list[dict[str, str]] = []
        port, guest = await asyncio.gather(
            _or_none(_port(services, vm.id), "netd", missing),
            _or_none(_guest(services, vm.id), "gateway", missing),
        )
    shown = views.vm(vm) | {
        "history": views.history(vm),
        "port": port,
        "guest": guest,
        "unavailable": missing,
    }
    if options.json:
        print(json.dumps(shown, indent=2))
    else:
        _show(shown)
    return failure.OK


async def _port(services: Services, vm_id: str) -> dict[str, Any]:
    netd = services.netd
    answer = await netd.ask(netd.stub.GetPort, netd_pb2.GetPortRequest(vm_id=vm_id))
    return net_views.port(answer.port)


async def _guest(services: Services, vm_id: str) -> dict[str, Any]:
    gateway = services.gateway
    answer = await gateway.ask(gateway.stub.GetGuest, gateway_pb2.GetGuestRequest(vm=vm_id))
    return views.guest(answer.guest)


async def _or_none(
    work: Awaitable[dict[str, Any]], service: str, missing: list[dict[str, str]]
) -> dict[str, Any] | None:
    """Return what `work` gives; None where there is none, or where the service has no answer."""
    try:
        return await work
    except (NotFound, FailedPrecondition):
        return None  # no port, or not live: no fault of the service
    except NexusError as error:
        missing.append({"service": service, "reason": error.reason, "message": error.message})
        return None


def _show(shown: dict[str, Any]) -> None:
    parts = {title: shown.pop(title) for title in ("spec", "port", "guest")}
    history, missing = shown.pop("history"), shown.pop("unavailable")
    last_exit = shown.pop("last_exit")
    parts["spec"].pop("network")  # as netd tells it below, or the address above
    sections.show("vm", shown)
    sections.show("last exit", last_exit)
    sections.show("spec", parts["spec"])
    if parts["port"]:
        port_sections(parts["port"])
    sections.show("guest", parts["guest"])
    if history:
        print("history")
    for step in history:
        reason = terminal.printable(step["reason"])
        print(f"  {step['time']}  {step['from']} -> {step['to']}  {reason}".rstrip())
    sys.stdout.flush()
    for gap in missing:
        terminal.note(gap["message"])
