"""What can be set in /etc/nexus/dns.toml, and its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nexus_rpc.server import ServerSettings


@dataclass(frozen=True)
class Settings:
    """Where the resolver listens.

    `port`: UDP and TCP port on 127.0.0.1, for the host, and on the gateways of all networks;
    netd's rules lead guests' DNS to 7753.
    """

    server: ServerSettings = field(
        default_factory=lambda: ServerSettings(runtime_dir=Path("/run/nexus/dns"))
    )
    port: int = 7753

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65_535:
            raise ValueError(f"port is {self.port}: expected 1 to 65535")
