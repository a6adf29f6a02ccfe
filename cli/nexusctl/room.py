"""What room there is for VMs, in a line for the host and one for each tag with a quota."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexus.vmm.v1 import vmm_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nexusctl.services import Vmm

_WORDS = {
    "memory_mib": "{used} of {limit} MiB of memory",
    "vcpus": "{used} of {limit} vCPUs",
    "disk_mib": "{used} of {limit} MiB of disk",
    "vms": "{used} of {limit} VMs",
}


async def budgets(vmm: Vmm, seconds: float) -> list[dict[str, Any]]:
    """Return budgets: of the host, with "" as `tag`, then of tags. Raises NexusError."""
    answer = await vmm.ask(vmm.stub.GetCapacity, vmm_pb2.GetCapacityRequest(), seconds)
    return [
        {"what": one.what, "tag": one.tag, "limit": one.limit, "used": one.used}
        for one in answer.budgets
    ]


def lines(budgets: Iterable[dict[str, Any]]) -> list[str]:
    """Return what is used of them, for people."""
    by_tag: dict[str, list[str]] = {}
    for budget in budgets:
        words = _WORDS.get(budget["what"], "{used} of {limit} " + budget["what"])
        by_tag.setdefault(budget["tag"], []).append(words.format(**budget))
    return [
        (f"used by {tag}: " if tag else "used: ") + ", ".join(parts)
        for tag, parts in by_tag.items()
    ]
