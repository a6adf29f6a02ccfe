"""A restart policy as the command line has it: "always:fixed=5s"."""

from __future__ import annotations

from nexus.vmm.v1 import vmm_pb2
from nexusctl.words import word

_CONDITION, _DELAY = "RESTART_CONDITION_", "RESTART_DELAY_"


def policy(parts: tuple[str, str, int]) -> vmm_pb2.RestartPolicy:
    """Return the policy that `arguments.values.restart` read."""
    condition, delay, seconds = parts
    return vmm_pb2.RestartPolicy(
        condition=vmm_pb2.RestartCondition.Value(_name(_CONDITION, condition)),
        delay=vmm_pb2.RestartDelay.Value(_name(_DELAY, delay)),
        fixed_seconds=seconds,
    )


def text(policy: vmm_pb2.RestartPolicy) -> str:
    """Return the policy as it would be asked for; the delay of "none" is left out."""
    if policy.condition in (
        vmm_pb2.RESTART_CONDITION_UNSPECIFIED,
        vmm_pb2.RESTART_CONDITION_NONE,
    ):
        return "none"
    condition = word(vmm_pb2.RestartCondition, policy.condition, _CONDITION).replace("_", "-")
    delay = word(vmm_pb2.RestartDelay, policy.delay, _DELAY)
    seconds = f"={policy.fixed_seconds}s" if policy.fixed_seconds else ""
    return f"{condition}:{delay}{seconds}"


def _name(prefix: str, text: str) -> str:
    return prefix + text.upper().replace("-", "_")
