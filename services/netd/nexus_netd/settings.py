"""Settings of netd: /etc/nexus/netd.toml."""

from __future__ import annotations

import pwd
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from nexus_netd.subnet import Subnet
from nexus_rpc.server import ServerSettings
from nexus_rpc.settings import SettingsError

FROM_HOST = "from-host"
_MOST_DNS = 5
# systemd-resolved writes the servers it asks itself here; resolv.conf names only its stub.
_RESOLV_CONF = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_LINK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@dataclass(frozen=True)
class Settings:
    """What netd runs with.

    `dns` is 1 to 5 addresses, or ["from-host"]: those of the host's resolv.conf when netd starts.
    `mtu` is in bytes. `tap_owner` is the user that VMs run as, by name or number. `vmm` is where
    vmm is followed, as a gRPC target.
    """

    bridge: str = "nexbr0"
    subnet: str = "172.16.0.0/12"
    dns: tuple[str, ...] = ("8.8.8.8", "1.1.1.1")
    mtu: int = 1500
    tap_owner: str = "nexus-vm"
    state_dir: Path = Path("/var/lib/nexus/netd")
    vmm: str = "unix:/run/nexus/vmm/vmm.sock"
    server: ServerSettings = field(default_factory=lambda: ServerSettings(Path("/run/nexus/netd")))

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        if not _LINK_NAME.fullmatch(self.bridge) or self.bridge in {".", ".."}:
            raise ValueError(
                f"bridge is {self.bridge!r}: 1 to 15 of letters, digits, '_', '.', '-'"
            )
        try:
            Subnet.parse(self.subnet)
        except ValueError as error:
            raise ValueError(f"subnet: {error}") from error
        # Below 1,280 Linux has no IPv6 on a link (RFC 8200), and no setting to turn it off by.
        if not 1_280 <= self.mtu <= 65_521:  # the latter is a TAP's most
            raise ValueError(f"mtu is {self.mtu}: 1,280 to 65,521 bytes")
        if self.dns != (FROM_HOST,):
            if not 1 <= len(self.dns) <= _MOST_DNS:
                raise ValueError(f"dns has {len(self.dns)} servers: 1 to {_MOST_DNS}")
            for server in self.dns:
                _check_dns(server)


def owner_uid(settings: Settings) -> int:
    """Return the uid that TAPs belong to. Raises SettingsError."""
    if settings.tap_owner.isdecimal():
        return int(settings.tap_owner)
    try:
        return pwd.getpwnam(settings.tap_owner).pw_uid
    except KeyError:
        raise SettingsError(
            f"tap_owner is {settings.tap_owner!r}: there is no such user; "
            "make it, or name the one that VMs run as"
        ) from None


def dns_servers(settings: Settings, files: tuple[Path, ...] = _RESOLV_CONF) -> tuple[str, ...]:
    """Return the DNS servers that guests are told. Raises SettingsError.

    From the host: the IPv4 servers that a guest can reach, so none on loopback.
    """
    if settings.dns != (FROM_HOST,):
        return settings.dns
    for file in files:
        servers = _nameservers(file)
        if servers:
            return servers[:_MOST_DNS]
    raise SettingsError(
        f'dns is "{FROM_HOST}" but {" and ".join(map(str, files))} name no IPv4 server '
        "beyond loopback; list the servers instead"
    )


def _nameservers(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    words = (line.split() for line in lines)
    found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return tuple(server for server in found if _is_usable(server))


def _is_usable(server: str) -> bool:
    try:
        return not IPv4Address(server).is_loopback
    except ValueError:
        return False


def _check_dns(server: str) -> None:
    try:
        IPv4Address(server)
    except ValueError:
        raise ValueError(f'dns has {server!r}: IPv4 addresses, or only "{FROM_HOST}"') from None
