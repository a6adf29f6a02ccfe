"""What can be set in /etc/nexus/vmm.toml, and its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nexus_rpc.server import ServerSettings


@dataclass(frozen=True)
class Settings:
    """Where vmm keeps and finds things (see docs/architecture.md).

    `vms_dir` must be on a file system with sparse files. It, `run_dir` and `guest_dir` are named in
    nexus-vm@.service and its launcher too.
    """

    server: ServerSettings = field(
        default_factory=lambda: ServerSettings(runtime_dir=Path("/run/nexus/vmm"))
    )
    state_dir: Path = Path("/var/lib/nexus/vmm")
    vms_dir: Path = Path("/var/lib/nexus/vms")
    run_dir: Path = Path("/run/nexus/vms")
    guest_dir: Path = Path("/usr/lib/nexus/guest")
