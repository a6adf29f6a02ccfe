"""What an administrator can set while vmm runs: the one table of it.

Values are kept and told as text by name (see settings.proto); a `Config` is what they come to.
docs/settings.md is made from this table. What vmm needs before it has a store is in vmm.toml.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nexus_rpc.errors import invalid_field
from nexus_vmm.config.kinds import Asset, Ratio, Whole
from nexus_vmm.config.quotas import QuotaList, Quotas

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nexus_vmm.config.kinds import Kind

_OWN = "the host's own"


@dataclass(frozen=True)
class Setting:
    """One setting: its name, the field of `Config`, its type, its default as text, and words."""

    name: str
    field: str
    kind: Kind
    default: str
    unit: str
    description: str


def _setting(name: str, kind: Kind, default: object, unit: str, description: str) -> Any:  # noqa: ANN401  # as dataclasses.field
    row = {"name": name, "kind": kind, "unit": unit, "description": description}
    return field(default=default, metadata=row)


@dataclass(frozen=True)
class Config:
    """The settings that hold; without arguments, their defaults."""

    default_vcpu_count: int = _setting(
        "default.vcpu_count", Whole(1, 32), 1, "", "CPUs of a VM that asks for none"
    )
    default_memory_mib: int = _setting(
        # Debian's kernel panics below 72.
        "default.memory_mib",
        Whole(80, 65_536),
        128,
        "MiB",
        "Memory of a VM that asks for none",
    )
    default_disk_mib: int = _setting(
        "default.disk_mib", Whole(16, 1_048_576), 2_048, "MiB", "Disk of a VM that asks for none"
    )
    default_image: str = _setting(
        "default.image", Asset(), "debian", "", "Image of a VM that names none"
    )
    default_kernel: str = _setting(
        "default.kernel", Asset(), "default", "", "Kernel of a VM that names none"
    )
    capacity_memory_mib: int = _setting(
        "capacity.memory_mib",
        Whole(80, 67_108_864, _OWN),
        0,
        "MiB",
        "Memory that live VMs share, before over-commitment",
    )
    capacity_vcpus: int = _setting(
        "capacity.vcpus",
        Whole(1, 8_192, _OWN),
        0,
        "",
        "CPUs that live VMs share, before over-commitment",
    )
    capacity_disk_mib: int = _setting(
        "capacity.disk_mib",
        Whole(16, 1_073_741_824, _OWN),
        0,
        "MiB",
        "Room that the disks of all VMs share, before over-commitment",
    )
    capacity_vms: int = _setting(
        "capacity.vms", Whole(0, 100_000), 4_000, "", "How many VMs there may be"
    )
    capacity_memory_overcommit: float = _setting(
        "capacity.memory_overcommit",
        Ratio(0.1, 10),
        1.0,
        "",
        "How often the same memory is given; below 1 some is kept for the host",
    )
    capacity_vcpu_overcommit: float = _setting(
        "capacity.vcpu_overcommit", Ratio(0.1, 100), 16.0, "", "How many vCPUs share a CPU"
    )
    capacity_disk_overcommit: float = _setting(
        "capacity.disk_overcommit",
        Ratio(0.1, 1_000),
        10.0,
        "",
        "How often the same room is given; disks are sparse",
    )
    quota_tags: Quotas = _setting(  # noqa: RUF009  # it makes a field
        "quota.tags",
        QuotaList(),
        Quotas(),
        "",
        "What the VMs with a tag may use together: team=blue: memory_mib=4096, vms=10",
    )
    stop_grace_seconds: int = _setting(
        "stop.grace_seconds",
        Whole(0, 300),
        10,
        "s",
        "What a guest gets to shut down where StopVm does not say, or its time to live is over",
    )
    drain_grace_seconds: int = _setting(
        "drain.grace_seconds",
        Whole(0, 300),
        30,
        "s",
        "What each guest gets to shut down where the host does",
    )


def text(value: object) -> str:
    """Return a value as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


DEFAULTS = Config()

TABLE: dict[str, Setting] = {
    row.metadata["name"]: Setting(field=row.name, default=text(row.default), **row.metadata)
    for row in fields(Config)
}
"""The settings by name."""


def check(values: Mapping[str, str]) -> dict[str, str]:
    """Return `values` as they are kept. Raises InvalidArgument (INVALID_FIELD)."""
    kept = {}
    for name, value in values.items():
        setting = TABLE.get(name)
        if setting is None:
            raise invalid_field("values", name, "no setting has that name; ListSettings has them")
        try:
            kept[name] = text(setting.kind.parse(value.strip())) if value else ""
        except ValueError as error:
            raise invalid_field(f"values.{name}", value, str(error)) from None
    return kept


def unfit(values: Mapping[str, str]) -> list[str]:
    """Return the names whose values this release does not allow, or does not know at all."""
    return [name for name, value in values.items() if not _fits(name, value)]


def read(values: Mapping[str, str]) -> Config:
    """Return what the kept `values` come to; one that is unfit counts as not set."""
    known: dict[str, Any] = {
        TABLE[name].field: TABLE[name].kind.parse(value)
        for name, value in values.items()
        if _fits(name, value)
    }
    return replace(DEFAULTS, **known)


def told(values: Mapping[str, str]) -> dict[str, str]:
    """Return the value of every setting as text, where the kept `values` hold."""
    config = read(values)
    return {name: text(getattr(config, setting.field)) for name, setting in TABLE.items()}


def _fits(name: str, value: str) -> bool:
    try:
        TABLE[name].kind.parse(value)
    except (KeyError, ValueError):
        return False
    return True
