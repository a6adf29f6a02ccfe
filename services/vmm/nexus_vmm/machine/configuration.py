"""A VM as Firecracker's API wants it (firecracker.yaml, version 1.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexus_vmm.places import JAIL_DISK, JAIL_GUEST, VSOCK

if TYPE_CHECKING:
    from pathlib import Path

    from nexus_vmm.machine.assets import Files
    from nexus_vmm.vm import Vm


def configuration(vm: Vm, files: Files, guest: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the resources to PUT before the start, in order.

    Firecracker names files as it sees them in its jail, where `guest` is the guest directory.

    Drives appear in the guest in the order in which they are given, as none is marked as root.
    """
    spec = vm.spec

    def jailed(path: Path) -> Path:
        return JAIL_GUEST / path.relative_to(guest)

    steps: list[tuple[str, dict[str, Any]]] = [
        ("/machine-config", {"vcpu_count": spec.vcpu_count, "mem_size_mib": spec.memory_mib}),
        (
            "/boot-source",
            {
                "kernel_image_path": str(jailed(files.kernel)),
                "initrd_path": str(jailed(files.initrd)),
                "boot_args": files.cmdline,
            },
        ),
        _drive("image", jailed(files.image), read_only=True),
        _drive("overlay", JAIL_DISK, read_only=False),
        _drive("runtime", jailed(files.runtime), read_only=True),
        ("/vsock", {"guest_cid": vm.cid, "uds_path": VSOCK}),
        ("/entropy", {}),
    ]
    if spec.network:
        steps.append(
            (
                "/network-interfaces/eth0",
                {
                    "iface_id": "eth0",
                    "guest_mac": spec.network.mac,
                    "host_dev_name": spec.network.tap,
                },
            )
        )
    if spec.balloon:
        steps.append(("/balloon", {"amount_mib": 0, "deflate_on_oom": True}))
    return steps


def _drive(name: str, path: Path, *, read_only: bool) -> tuple[str, dict[str, Any]]:
    return (
        f"/drives/{name}",
        {
            "drive_id": name,
            "path_on_host": str(path),
            "is_root_device": False,
            "is_read_only": read_only,
            # Writeback: a guest's fsync reaches the host's disk. "Unsafe" would drop it.
            "cache_type": "Unsafe" if read_only else "Writeback",
        },
    )
