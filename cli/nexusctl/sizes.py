"""The sizes of a VM, from options to its spec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field

if TYPE_CHECKING:
    from argparse import Namespace

    from nexus.vmm.v1 import vmm_pb2

_SIZES = (
    ("vcpu_count", "cpus", "1 to 32"),
    ("memory_mib", "memory", "80 to 65536"),
    ("disk_mib", "disk", "16 to 1048576"),
)
"""Fields of VmSpec, the options for them, and their bounds as vmm.proto has them."""


def set_sizes(spec: vmm_pb2.VmSpec, options: Namespace) -> list[str]:
    """Set what the options ask for, and return the fields. Raises InvalidArgument."""
    given = []
    for field, option, bounds in _SIZES:
        value = getattr(options, option, None)
        if value == 0:  # on the wire, 0 would ask for the default
            raise invalid_field(field, value, bounds)
        if value is not None:
            setattr(spec, field, value)
            given.append(field)
    return given
