"""The restart policy of a VM: what a caller may ask for, and how it is told."""

from __future__ import annotations

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import invalid_field
from nexus_vmm.vm import Condition, Delay, RestartPolicy

LONGEST_FIXED = 3_600

_CONDITIONS: dict[Condition, vmm_pb2.RestartCondition.ValueType] = {
    Condition.NONE: vmm_pb2.RESTART_CONDITION_NONE,
    Condition.ON_BOOT: vmm_pb2.RESTART_CONDITION_ON_BOOT,
    Condition.ALWAYS: vmm_pb2.RESTART_CONDITION_ALWAYS,
    Condition.ON_FAILURE: vmm_pb2.RESTART_CONDITION_ON_FAILURE,
}
_DELAYS: dict[Delay, vmm_pb2.RestartDelay.ValueType] = {
    Delay.BACKOFF: vmm_pb2.RESTART_DELAY_BACKOFF,
    Delay.IMMEDIATE: vmm_pb2.RESTART_DELAY_IMMEDIATE,
    Delay.FIXED: vmm_pb2.RESTART_DELAY_FIXED,
}
_ASKED_CONDITIONS = {number: condition for condition, number in _CONDITIONS.items()} | {
    vmm_pb2.RESTART_CONDITION_UNSPECIFIED: Condition.NONE
}
_ASKED_DELAYS = {number: delay for delay, number in _DELAYS.items()} | {
    vmm_pb2.RESTART_DELAY_UNSPECIFIED: Delay.BACKOFF
}


def check_policy(field: str, message: vmm_pb2.RestartPolicy) -> RestartPolicy:
    """Return the policy in `message`, the value of `field`. Raises InvalidArgument."""
    condition = _ASKED_CONDITIONS.get(message.condition)
    if condition is None:
        known = ", ".join(map(vmm_pb2.RestartCondition.Name, _CONDITIONS.values()))
        raise invalid_field(f"{field}.condition", message.condition, f"one of {known}")
    delay = _ASKED_DELAYS.get(message.delay)
    if delay is None:
        known = ", ".join(map(vmm_pb2.RestartDelay.Name, _DELAYS.values()))
        raise invalid_field(f"{field}.delay", message.delay, f"one of {known}")
    seconds, name = message.fixed_seconds, f"{field}.fixed_seconds"
    if delay is not Delay.FIXED and seconds:
        raise invalid_field(name, seconds, "0 unless the delay is RESTART_DELAY_FIXED")
    if delay is Delay.FIXED and not 1 <= seconds <= LONGEST_FIXED:
        raise invalid_field(name, seconds, f"1 to {LONGEST_FIXED:,}")
    return RestartPolicy(condition, delay, seconds)


def policy_to_proto(policy: RestartPolicy) -> vmm_pb2.RestartPolicy:
    """Return `policy` as the API tells it."""
    return vmm_pb2.RestartPolicy(
        condition=_CONDITIONS[policy.condition],
        delay=_DELAYS[policy.delay],
        fixed_seconds=policy.fixed_seconds,
    )
