"""nexusctl status: how the services are, and what stands in the way of the network."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import NexusError
from nexusctl import failure, room, table, terminal, views
from nexusctl.endpoint import RESOLVER
from nexusctl.progress import progress
from nexusctl.vms import every

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from nexusctl.services import Service, Services

_SECONDS = 5.0

_ANSWERS = {"serving", "not serving"}
_HEALTH_BY_REASON = {"SOCKET_DENIED": "denied", "DEADLINE_EXCEEDED": "no answer"}


async def run(options: Namespace, services: Services) -> int:
    """Ask all at once, and tell each in a row."""
    async with progress("asking the services"):
        rows = await asyncio.gather(*(_health(service) for service in services.all))
        by_name = {row["name"]: row for row in rows}
        vmm, netd = by_name["vmm"], by_name["netd"]
        subsystems = counts = budgets = None
        if vmm["health"] in _ANSWERS:
            subsystems = await _subsystems(services, vmm)
            counts = await _counts(services, vmm)
            budgets = await _budgets(services, vmm)
        warnings = await _warnings(services, netd) if netd["health"] == "serving" else None
    if options.json:
        shown = {
            "services": by_name,
            "subsystems": subsystems,
            "vms": counts,
            "capacity": budgets,
            "network_warnings": warnings,
        }
        print(json.dumps(shown, indent=2))
    else:
        _show(rows, subsystems or {}, counts, [*room.lines(budgets or []), *_told(warnings or [])])
    return exit_code(rows, subsystems or {})


def exit_code(
    rows: Sequence[Mapping[str, Any]], subsystems: Mapping[str, Mapping[str, Any]]
) -> int:
    """Return what the health of all services, and of what vmm depends on, comes to."""
    # Only netd needs the resolver's socket: who may not use it misses nothing.
    health = {row["health"] for row in rows if (row["name"], row["health"]) != (RESOLVER, "denied")}
    if not all(one["ok"] for one in subsystems.values()):
        health.add("not serving")
    if health == {"serving"}:
        return failure.OK
    return failure.GENERAL if health <= _ANSWERS else failure.UNREACHABLE


async def _health(service: Service) -> dict[str, Any]:
    stub: Any = health_pb2_grpc.HealthStub(service.channel)
    row = {"name": service.name, "health": "", "target": service.target, "version": "", "note": ""}
    try:
        answer = await service.ask(stub.Check, health_pb2.HealthCheckRequest(), _SECONDS)
    except NexusError as error:
        row["health"] = _HEALTH_BY_REASON.get(error.reason, "unreachable")
        row["note"] = error.message
    else:
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        row["health"] = "serving" if serving else "not serving"
    return row


async def _subsystems(services: Services, row: dict[str, Any]) -> dict[str, Any] | None:
    """Add to vmm's row what it runs with, and return how what it depends on is."""
    vmm = services.vmm
    try:
        info = await vmm.ask(vmm.stub.GetInfo, vmm_pb2.GetInfoRequest(), _SECONDS)
    except NexusError as error:
        row["note"] = error.message
        return None
    row["version"] = info.version
    row["note"] = f"Firecracker {info.firecracker_version}" if info.firecracker_version else ""
    return {one.name: {"ok": one.ok, "detail": one.detail} for one in info.subsystems}


async def _counts(services: Services, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return how many VMs there are in each state."""
    wanted = vmm_pb2.ListVmsRequest(field_mask=FieldMask(paths=["state"]))
    try:
        states = Counter([views.vm_state(vm.state) async for vm in every(services, wanted)])
    except NexusError as error:
        row["note"] = error.message
        return None
    return {"total": states.total(), "by_state": dict(states)}


async def _budgets(services: Services, row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return what room there is for VMs."""
    try:
        return await room.budgets(services.vmm, _SECONDS)
    except NexusError as error:
        row["note"] = error.message
        return None


async def _warnings(services: Services, row: dict[str, Any]) -> list[str] | None:
    """Return what netd says stands in the way, of all networks."""
    netd = services.netd
    try:
        answer = await netd.ask(netd.stub.ListNetworks, netd_pb2.ListNetworksRequest(), _SECONDS)
    except NexusError as error:
        row["note"] = error.message
        return None
    return list(dict.fromkeys(text for network in answer.networks for text in network.warnings))


def _show(
    rows: list[dict[str, Any]],
    subsystems: Mapping[str, Any],
    counts: dict[str, Any] | None,
    lines: list[str],
) -> None:
    _print(
        ["SERVICE", "HEALTH", "VERSION", "TARGET", "NOTE"],
        [[row["name"], row["health"], row["version"], row["target"], row["note"]] for row in rows],
        terminal.width(sys.stdout),
    )
    if subsystems:
        _print(
            ["SUBSYSTEM", "HEALTH", "DETAIL"],
            [
                [name, "ok" if one["ok"] else "not ok", one["detail"]]
                for name, one in subsystems.items()
            ],
            None,  # what to do is at the end of a line
        )
    if counts is None:
        print("VMs: unknown")
    else:
        by_state = ", ".join(f"{number} {state}" for state, number in counts["by_state"].items())
        print(f"VMs: {counts['total']}" + (f" ({by_state})" if by_state else ""))
    for line in lines:
        print(terminal.printable(line))


def _told(warnings: Sequence[str]) -> list[str]:
    return [f"warning: {warning}" for warning in warnings]


def _print(header: list[str], rows: list[list[str]], columns: int | None) -> None:
    styles = views.STYLES if terminal.coloured(sys.stdout) else None
    print(table.render(header, rows, columns=columns, styles=styles), end="")
