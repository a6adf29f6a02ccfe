"""Where the dev host's files are on the machine that runs it, and its ports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]

ADDRESS = "10.0.2.15"
"""The dev host's own address, the one that QEMU's user-mode network forwards to."""

SSH_PORT = 7722
GRPC_PORTS = (7700, 7701, 7702)
"""Of vmm, netd and the gateway; the same on the dev host and, on loopback, in front of it.

The resolver has none: netd is its only client."""

MCP_PORT = 7710
"""On the dev host's loopback; reached by `devhost.py forward`."""

SERVICES = ("nexus-vmm", "nexus-netd", "nexus-gateway", "nexus-dns")


@dataclass(frozen=True)
class Layout:
    """Folders and files below the cache."""

    cache: Path = REPO / ".cache"

    @property
    def home(self) -> Path:
        """Everything of the dev host."""
        return self.cache / "devhost"

    @property
    def guest(self) -> Path:
        """What deploy/guest/build.py makes."""
        return self.cache / "guest"

    @property
    def run(self) -> Path:
        """What belongs to the running machine: sockets, pid, serial log."""
        return self.home / "run"

    @property
    def data(self) -> Path:
        """The disk of /var/lib/nexus: survives stops and rebuilds, until `clean`."""
        return self.home / "data.img"

    @property
    def client(self) -> Path:
        """The client's config file, which names the certificates."""
        return self.home / "client.toml"

    @property
    def ssh(self) -> Path:
        """A link to the folder of ssh keys and known hosts."""
        return self.home / "ssh"

    @property
    def tls(self) -> Path:
        """A link to the folder of the client's certificate and its CA."""
        return self.home / "tls"

    @property
    def image(self) -> Path:
        """A link to the folder of the last build: root.img, vmlinuz, initrd."""
        return self.home / "image"
