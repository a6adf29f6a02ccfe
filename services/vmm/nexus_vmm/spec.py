"""Checking what a caller asked for, and the defaults of what it left out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field
from nexus_vmm.interface import check_interface
from nexus_vmm.policy import check_policy
from nexus_vmm.tags import check_tags
from nexus_vmm.ttl import check_ttl
from nexus_vmm.vm import Spec

if TYPE_CHECKING:
    from nexus.vmm.v1 import vmm_pb2

# Default, least, most: of the fields that hold a number (see vmm.proto).
NUMBERS: dict[str, tuple[int, int, int]] = {
    "vcpu_count": (1, 1, 32),
    "memory_mib": (128, 80, 65_536),  # Debian's kernel panics below 72
    "disk_mib": (2_048, 16, 1_048_576),
}
NAMES = {"image": "debian", "kernel": "default"}

_ASSET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def check_spec(message: vmm_pb2.VmSpec) -> Spec:
    """Return the spec in `message`, with defaults. Raises InvalidArgument (INVALID_FIELD)."""
    return Spec(
        vcpu_count=_number("vcpu_count", message.vcpu_count),
        memory_mib=_number("memory_mib", message.memory_mib),
        image=_asset("image", message.image),
        kernel=_asset("kernel", message.kernel),
        disk_mib=_number("disk_mib", message.disk_mib),
        network=check_interface("spec.network", message.network)
        if message.HasField("network")
        else None,
        balloon=message.balloon,
        restart=check_policy("spec.restart", message.restart),
        tags=check_tags("spec.tags", message.tags),
        ttl=check_ttl("spec.ttl", message.ttl),
        serial_input=message.serial_input,
    )


def _number(field: str, value: int) -> int:
    default, least, most = NUMBERS[field]
    if value == 0:
        return default
    if not least <= value <= most:
        raise invalid_field(f"spec.{field}", value, f"{least} to {most}")
    return value


def _asset(field: str, value: str) -> str:
    if not value:
        return NAMES[field]
    if _ASSET.fullmatch(value) is None:
        raise invalid_field(
            f"spec.{field}",
            value,
            "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        )
    return value
