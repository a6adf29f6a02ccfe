"""The time to live of a VM: what a caller may ask for, and how it is told."""

from __future__ import annotations

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import invalid_field
from nexus_vmm.vm import ExpireAction, TimeToLive

SHORTEST, LONGEST = 10, 365 * 24 * 3600

_ACTIONS: dict[ExpireAction, vmm_pb2.ExpireAction.ValueType] = {
    ExpireAction.STOP: vmm_pb2.EXPIRE_ACTION_STOP,
    ExpireAction.PAUSE: vmm_pb2.EXPIRE_ACTION_PAUSE,
    ExpireAction.DELETE: vmm_pb2.EXPIRE_ACTION_DELETE,
}
_ASKED = {number: action for action, number in _ACTIONS.items()} | {
    vmm_pb2.EXPIRE_ACTION_UNSPECIFIED: ExpireAction.STOP
}


def check_ttl(field: str, message: vmm_pb2.TimeToLive) -> TimeToLive:
    """Return the time to live in `message`, the value of `field`. Raises InvalidArgument."""
    action = _ASKED.get(message.action)
    if action is None:
        known = ", ".join(map(vmm_pb2.ExpireAction.Name, _ACTIONS.values()))
        raise invalid_field(f"{field}.action", message.action, f"one of {known}")
    return TimeToLive(
        _seconds(f"{field}.max_seconds", message.max_seconds),
        _seconds(f"{field}.idle_seconds", message.idle_seconds),
        action,
    )


def ttl_to_proto(ttl: TimeToLive) -> vmm_pb2.TimeToLive:
    """Return `ttl` as the API tells it."""
    return vmm_pb2.TimeToLive(
        max_seconds=ttl.max_seconds,
        idle_seconds=ttl.idle_seconds,
        action=_ACTIONS[ttl.action],
    )


def _seconds(field: str, value: int) -> int:
    if value and not SHORTEST <= value <= LONGEST:
        raise invalid_field(field, value, f"0, or {SHORTEST} to {LONGEST:,}")
    return value
