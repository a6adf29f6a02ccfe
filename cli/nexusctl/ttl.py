"""A time to live as the command line has it: "8h,idle=30m:delete"."""

from __future__ import annotations

from nexus.vmm.v1 import vmm_pb2
from nexusctl.words import word

_ACTION = "EXPIRE_ACTION_"
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def time_to_live(parts: tuple[int, int, str]) -> vmm_pb2.TimeToLive:
    """Return the time to live that `arguments.values.ttl` read."""
    longest, idle, action = parts
    return vmm_pb2.TimeToLive(
        max_seconds=longest,
        idle_seconds=idle,
        action=vmm_pb2.ExpireAction.Value(_ACTION + action.upper()),
    )


def text(ttl: vmm_pb2.TimeToLive) -> str:
    """Return the time to live as it would be asked for; the action of "none" is left out."""
    times = [_duration(ttl.max_seconds)] if ttl.max_seconds else []
    if ttl.idle_seconds:
        times.append(f"idle={_duration(ttl.idle_seconds)}")
    if not times:
        return "none"
    action = ttl.action or vmm_pb2.EXPIRE_ACTION_STOP
    return f"{','.join(times)}:{word(vmm_pb2.ExpireAction, action, _ACTION)}"


def _duration(seconds: int) -> str:
    size, unit = next(entry for entry in _UNITS if seconds % entry[0] == 0)
    return f"{seconds // size}{unit}"
