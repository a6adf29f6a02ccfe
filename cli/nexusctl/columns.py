"""The columns of `vm list`: what each shows, and which fields of a VM it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nexusctl import restart, ttl, views

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from nexus.vmm.v1 import vmm_pb2


class Column(NamedTuple):
    """Fields of Vm, and what is shown of them at a time."""

    fields: tuple[str, ...]
    text: Callable[[vmm_pb2.Vm, datetime], str]


def _address(vm: vmm_pb2.Vm, now: datetime) -> str:
    del now
    return vm.spec.network.ipv4.partition("/")[0] or "-"


def _restart(vm: vmm_pb2.Vm, now: datetime) -> str:
    """Return the policy, and how often it started the VM."""
    del now
    policy = restart.text(vm.spec.restart)
    return f"{policy} ({vm.restarts})" if vm.restarts else policy


def _tags(vm: vmm_pb2.Vm, now: datetime) -> str:
    del now
    return views.tags(vm) or "-"


def _expires(vm: vmm_pb2.Vm, now: datetime) -> str:
    """Return in how long its time to live ends, as things are."""
    return f"in {views.left(vm.expire_time, now)}" if vm.HasField("expire_time") else "-"


def _exit(vm: vmm_pb2.Vm, now: datetime) -> str:
    if not vm.HasField("last_exit"):
        return "-"
    return f"{vm.last_exit.cause} {views.age(vm.last_exit.time, now)} ago"


COLUMNS = {
    "name": Column(("name",), lambda vm, _: vm.name),
    "id": Column(("id",), lambda vm, _: vm.id),
    "state": Column(("state",), lambda vm, _: views.vm_state(vm.state)),
    "reason": Column(("state_reason",), lambda vm, _: vm.state_reason or "-"),
    "changed": Column(("state_time",), lambda vm, now: views.age(vm.state_time, now)),
    "address": Column(("spec.network",), _address),
    "image": Column(("spec.image",), lambda vm, _: vm.spec.image),
    "kernel": Column(("spec.kernel",), lambda vm, _: vm.spec.kernel),
    "cpus": Column(("spec.vcpu_count",), lambda vm, _: str(vm.spec.vcpu_count)),
    "memory": Column(("spec.memory_mib",), lambda vm, _: str(vm.spec.memory_mib)),
    "disk": Column(("spec.disk_mib",), lambda vm, _: str(vm.spec.disk_mib)),
    "restart": Column(("spec.restart", "restarts"), _restart),
    "ttl": Column(("spec.ttl",), lambda vm, _: ttl.text(vm.spec.ttl)),
    "expires": Column(("expire_time",), _expires),
    "tags": Column(("spec.tags",), _tags),
    "exit": Column(("last_exit",), _exit),
    "pid": Column(("pid",), lambda vm, _: str(vm.pid or "-")),
    "uid": Column(("uid",), lambda vm, _: str(vm.uid)),
    "age": Column(("create_time",), lambda vm, now: views.age(vm.create_time, now)),
}
"""By the names that `arguments.listing` takes."""
