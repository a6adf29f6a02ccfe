"""Budgets: what VMs ask of the host, what is free of it, and the refusal when that is too little.

Pure: from settings, the host's size and what is used to the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.errors import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nexus_vmm.config.table import Config
    from nexus_vmm.limits.host import Host
    from nexus_vmm.vm import Spec

Amounts = dict[str, int]
"""Of each resource (see `quotas.RESOURCES`) how much."""

_WORDS = {
    "memory_mib": "MiB of memory",
    "vcpus": "vCPUs",
    "disk_mib": "MiB of disk",
    "vms": "VMs",
}
_WAYS_OUT = {
    "memory_mib": "stop VMs, or raise capacity.memory_mib or capacity.memory_overcommit",
    "vcpus": "stop VMs, or raise capacity.vcpus or capacity.vcpu_overcommit",
    "disk_mib": "delete VMs, or raise capacity.disk_mib or capacity.disk_overcommit",
    "vms": "delete VMs, or raise capacity.vms",
}

_LIMITS: dict[str, Callable[[Config, Host], float]] = {
    "memory_mib": lambda config, host: (
        (config.capacity_memory_mib or host.memory_mib()) * config.capacity_memory_overcommit
    ),
    "vcpus": lambda config, host: (
        (config.capacity_vcpus or host.vcpus()) * config.capacity_vcpu_overcommit
    ),
    "disk_mib": lambda config, host: (
        (config.capacity_disk_mib or host.disk_mib()) * config.capacity_disk_overcommit
    ),
    "vms": lambda config, _: config.capacity_vms,
}


@dataclass(frozen=True)
class Budget:
    """The most that may be used of a resource, and what is; by the VMs with `tag`, or "" by all."""

    what: str
    tag: str
    limit: int
    used: int

    @property
    def free(self) -> int:
        """What is left; a limit may have been lowered below what is used."""
        return max(0, self.limit - self.used)


def of_all(spec: Spec) -> Amounts:
    """Return what a VM asks for by being there."""
    return {"disk_mib": spec.disk_mib, "vms": 1}


def of_live(spec: Spec) -> Amounts:
    """Return what a VM asks for by being live."""
    return {"memory_mib": spec.memory_mib, "vcpus": spec.vcpu_count}


def limit(what: str, config: Config, host: Host) -> int:
    """Return the host's budget of a resource. Raises OSError where it cannot be measured."""
    return int(_LIMITS[what](config, host))


def check(name: str, asked: Mapping[str, int], budgets: Iterable[Budget]) -> None:
    """Raise ResourceExhausted (NO_CAPACITY, QUOTA_EXCEEDED) unless the VM `name` fits into all."""
    for budget in budgets:
        wanted = asked.get(budget.what, 0)
        if wanted > budget.free:
            raise _refusal(name, wanted, budget)


def _refusal(name: str, asked: int, budget: Budget) -> ResourceExhausted:
    words = _WORDS[budget.what]
    figures = {
        "what": budget.what,
        "asked": str(asked),
        "free": str(budget.free),
        "limit": str(budget.limit),
    }
    need = f"VM {name!r} needs {asked} {words}, and {budget.free} of {budget.limit} are free"
    if budget.tag:
        return ResourceExhausted(
            "QUOTA_EXCEEDED",
            f"{need} for VMs with {budget.tag}; stop or delete some, or raise quota.tags",
            tag=budget.tag,
            **figures,
        )
    return ResourceExhausted("NO_CAPACITY", f"{need}; {_WAYS_OUT[budget.what]}", **figures)
