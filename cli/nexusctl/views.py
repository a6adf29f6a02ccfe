"""What is shown of VMs and guests: one dictionary each, for --json and for people alike.

Keys and values are stable; states are the enum's names without their prefix, in small letters.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nexus.gateway.v1 import gateway_pb2
from nexus.vmm.v1 import vmm_pb2
from nexusctl import restart, ttl
from nexusctl.words import word

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

STYLES = {
    "ready": "green",
    "serving": "green",
    "ok": "green",
    "running": "yellow",
    "online": "yellow",
    "provisioning": "yellow",
    "connecting": "yellow",
    "paused": "yellow",
    "unreachable": "red",
    "not serving": "red",
    "not ok": "red",
    "denied": "red",
    "no answer": "red",
    "crashed": "red",
    "failed": "red",
    "created": "dim",
    "stopped": "dim",
}

_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def vm_state(state: int) -> str:
    """Return the state's word; one that this release does not know yet is told as its number."""
    return word(vmm_pb2.VmState, state, "VM_STATE_")


def vm(vm: vmm_pb2.Vm) -> dict[str, Any]:
    """Return a VM. Memory and disk are MiB; times are RFC 3339 in UTC, or None."""
    network = _network(vm.spec.network) if vm.spec.HasField("network") else None
    return {
        "id": vm.id,
        "name": vm.name,
        "state": vm_state(vm.state),
        "state_reason": vm.state_reason,
        "address": network["ipv4"].partition("/")[0] if network else None,
        "spec": {
            "image": vm.spec.image,
            "kernel": vm.spec.kernel,
            "vcpu_count": vm.spec.vcpu_count,
            "memory_mib": vm.spec.memory_mib,
            "disk_mib": vm.spec.disk_mib,
            "network": network,
            "balloon": vm.spec.balloon,
            "serial_input": vm.spec.serial_input,
            "restart": restart.text(vm.spec.restart),
            "ttl": ttl.text(vm.spec.ttl),
            "tags": dict(sorted(vm.spec.tags.items())),
        },
        "create_time": time(vm, "create_time"),
        "state_time": time(vm, "state_time"),
        "next_start_time": time(vm, "next_start_time"),
        "restarts": vm.restarts,
        "expire_time": time(vm, "expire_time"),
        "expiring": vm.expiring,
        "stopping": vm.stopping,
        "last_exit": _exit(vm.last_exit) if vm.HasField("last_exit") else None,
        "uid": vm.uid,
        "etag": vm.etag,
        "boot": vm.boot,
        "pid": vm.pid,
        "cid": vm.cid,
        "vsock_path": vm.vsock_path,
    }


def _exit(end: vmm_pb2.Exit) -> dict[str, Any]:
    return {
        "cause": end.cause,
        "exit_code": end.exit_code if end.HasField("exit_code") else None,
        "signal": end.signal if end.HasField("signal") else None,
        "time": time(end, "time"),
    }


def tags(vm: vmm_pb2.Vm) -> str:
    """Return the VM's tags as they are given, "env=prod team=blue"."""
    return " ".join(f"{key}={value}" for key, value in sorted(vm.spec.tags.items()))


def event(event: vmm_pb2.WatchVmsResponse) -> dict[str, Any]:
    """Return what a watcher of VMs was told; `revision` 0 is none to carry on after."""
    shown: dict[str, Any] = {"event": "missed", "revision": event.revision}
    match event.WhichOneof("event"):
        case "vm":
            return shown | {"event": "vm", "vm": vm(event.vm)}
        case "deleted_vm_id":
            return shown | {"event": "deleted", "id": event.deleted_vm_id}
        case "synced":
            return shown | {"event": "synced"}
    return shown


def history(vm: vmm_pb2.Vm) -> list[dict[str, Any]]:
    """Return the VM's last changes of state, oldest first."""
    return [
        {
            "from": vm_state(getattr(step, "from")),
            "to": vm_state(step.to),
            "reason": step.reason,
            "time": time(step, "time"),
        }
        for step in vm.history
    ]


def _network(end: vmm_pb2.NetworkInterface) -> dict[str, Any]:
    return {
        "tap": end.tap,
        "mac": end.mac,
        "ipv4": end.ipv4,
        "gateway": end.gateway,
        "dns": list(end.dns),
        "ipv6": end.ipv6,
        "ipv6_gateway": end.ipv6_gateway,
        "search": list(end.search),
        "mtu": end.mtu,
    }


def guest(guest: gateway_pb2.Guest) -> dict[str, Any]:
    """Return what a guest said of itself."""
    return {
        "state": word(gateway_pb2.GuestState, guest.state, "GUEST_STATE_"),
        "reason": guest.reason,
        "boot_id": guest.boot_id,
        "agent_version": guest.agent_version,
        "kernel": guest.kernel,
        "os": guest.os,
        "warnings": list(guest.warnings),
    }


def age(when: Timestamp, now: datetime) -> str:
    """Return how long ago `when` was, in its largest unit: "3d", "5h", "12m", "7s"."""
    return _length((now - when.ToDatetime(UTC)).total_seconds())


def left(when: Timestamp, now: datetime) -> str:
    """Return how long it is until `when`, as `age` does."""
    return _length((when.ToDatetime(UTC) - now).total_seconds())


def _length(time: float) -> str:
    seconds = max(0, int(time))
    size, unit = next((entry for entry in _AGES if seconds >= entry[0]), (1, "s"))
    return f"{seconds // size}{unit}"


def time(message: Any, field: str) -> str | None:  # noqa: ANN401  # any message with a Timestamp
    """Return a time as RFC 3339 in UTC, or None where there is none."""
    if not message.HasField(field):
        return None
    when: datetime = getattr(message, field).ToDatetime(UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
