"""Checking what a caller asked for, and the defaults of what it left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexus_rpc.errors import invalid_field
from nexus_vmm.api.interface import check_interface
from nexus_vmm.api.policy import check_policy
from nexus_vmm.api.tags import check_tags
from nexus_vmm.api.ttl import check_ttl
from nexus_vmm.config.table import DEFAULTS, TABLE
from nexus_vmm.vm import Spec

if TYPE_CHECKING:
    from nexus.vmm.v1 import vmm_pb2
    from nexus_vmm.config.table import Config


def check_spec(message: vmm_pb2.VmSpec, defaults: Config = DEFAULTS) -> Spec:
    """Return the spec in `message`, with `defaults`. Raises InvalidArgument (INVALID_FIELD)."""
    return Spec(
        vcpu_count=_given("vcpu_count", message.vcpu_count, defaults),
        memory_mib=_given("memory_mib", message.memory_mib, defaults),
        image=_given("image", message.image, defaults),
        kernel=_given("kernel", message.kernel, defaults),
        disk_mib=_given("disk_mib", message.disk_mib, defaults),
        network=check_interface("spec.network", message.network)
        if message.HasField("network")
        else None,
        balloon=message.balloon,
        restart=check_policy("spec.restart", message.restart),
        tags=check_tags("spec.tags", message.tags),
        ttl=check_ttl("spec.ttl", message.ttl),
        serial_input=message.serial_input,
    )


def _given(field: str, value: int | str, defaults: Config) -> Any:  # noqa: ANN401  # as the field is
    """Return the value of a field that a setting has the range and the default of."""
    setting = TABLE[f"default.{field}"]
    if not value:
        return getattr(defaults, setting.field)
    try:
        return setting.kind.parse(str(value))
    except ValueError as error:
        raise invalid_field(f"spec.{field}", value, str(error)) from None
