"""What can be set in /etc/nexus/gateway.toml, and its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nexus_rpc.server import ServerSettings
from nexus_rpc.settings import check_loopback


@dataclass(frozen=True)
class McpSettings:
    """The MCP endpoint over HTTP.

    `listen` is loopback and a port; empty turns the endpoint off. `token` holds the bearer token;
    a relative path is below $CREDENTIALS_DIRECTORY (systemd's LoadCredential=). `idle_seconds`
    is how long a session of the revisions with sessions may lie idle.
    """

    listen: str = "127.0.0.1:7710"
    token: Path = Path("mcp-token")
    max_sessions: int = 256
    max_connections: int = 256
    idle_seconds: float = 1800.0

    def __post_init__(self) -> None:
        check_loopback("mcp.listen", self.listen)


@dataclass(frozen=True)
class Settings:
    """Where the gateway finds vmm, and how long it waits for guests.

    `agent_ready_timeout`: seconds from a VM's start until a silent guest counts as unreachable.
    """

    server: ServerSettings = field(
        default_factory=lambda: ServerSettings(runtime_dir=Path("/run/nexus/gateway"))
    )
    vmm: str = "unix:/run/nexus/vmm/vmm.sock"
    agent_ready_timeout: float = 60.0
    mcp: McpSettings = field(default_factory=McpSettings)

    def __post_init__(self) -> None:
        if not 1 <= self.agent_ready_timeout <= 300:
            raise ValueError(
                f"agent_ready_timeout is {self.agent_ready_timeout}: expected 1 to 300 seconds"
            )
