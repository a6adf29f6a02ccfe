"""Settings of netd: /etc/nexus/netd.toml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nexus_netd import checks
from nexus_netd.model import CONNECTIONS, HostPort, Limits, Mode, NetworkSpec, Policy, Protocol
from nexus_netd.records.networks import DEFAULT
from nexus_netd.requested import DNS, LEAST_MTU, MOST_HOST_PORTS, MOST_MTU
from nexus_rpc.errors import InvalidArgument
from nexus_rpc.server import ServerSettings

_POLICIES = (Mode.OPEN.value, Mode.NONE.value)


@dataclass(frozen=True)
class Settings:
    """What netd runs with; the first eight, and `connections`, are of the network "default".

    `dns` is 1 to 5 addresses, or ["from-host"]: those of the host's resolv.conf at the time. `mtu`
    is in bytes. `policy` is "open" or "none". `host_ports` are services of the host that guests
    may reach, "tcp/8080". `vmm` is where vmm is followed, `resolver` where the
    resolver is driven, as gRPC targets.
    """

    bridge: str = "nexbr0"
    subnet: str = "172.16.0.0/12"
    ipv6_subnet: str = ""
    dns: tuple[str, ...] = DNS
    search: tuple[str, ...] = ("nexus",)
    mtu: int = 1500
    policy: str = Mode.OPEN.value
    host_ports: tuple[str, ...] = ()
    connections: int = CONNECTIONS
    state_dir: Path = Path("/var/lib/nexus/netd")
    vmm: str = "unix:/run/nexus/vmm/vmm.sock"
    resolver: str = "unix:/run/nexus/dns/dns.sock"
    server: ServerSettings = field(default_factory=lambda: ServerSettings(Path("/run/nexus/netd")))

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be meant."""
        try:
            self.network()
        except InvalidArgument as error:
            raise ValueError(str(error)) from error

    def network(self) -> NetworkSpec:
        """Return the network "default" as it is to be. Raises ValueError, InvalidArgument."""
        if not self.dns:
            raise ValueError("dns has no servers: 1 to 5 addresses, or only 'from-host'")
        if not LEAST_MTU <= self.mtu <= MOST_MTU:
            raise ValueError(f"mtu is {self.mtu}: {LEAST_MTU:,} to {MOST_MTU:,} bytes")
        if self.policy not in _POLICIES:
            raise ValueError(f"policy is {self.policy!r}: one of {', '.join(_POLICIES)}")
        if not 1 <= self.connections < 2**32:
            raise ValueError(f"connections is {self.connections}: at least 1")
        return NetworkSpec(
            name=DEFAULT,
            bridge=checks.bridge_name("bridge", self.bridge),
            subnet=checks.subnet("subnet", self.subnet),
            ipv6=checks.ipv6_subnet("ipv6_subnet", self.ipv6_subnet) if self.ipv6_subnet else None,
            dns=checks.servers("dns", self.dns),
            search=checks.search("search", self.search),
            mtu=self.mtu,
            default_policy=Policy(Mode(self.policy)),
            default_limits=Limits(connections=self.connections),
            host_ports=_host_ports(self.host_ports),
        )


def _host_ports(texts: tuple[str, ...]) -> tuple[HostPort, ...]:
    if len(texts) > MOST_HOST_PORTS:
        raise ValueError(f"host_ports has {len(texts)}: at most {MOST_HOST_PORTS}")
    found = set()
    for text in texts:
        name, _, port = text.partition("/")
        if name not in {"tcp", "udp"} or not port.isdecimal():
            raise ValueError(f"host_ports has {text!r}: write it as 'tcp/8080' or 'udp/53'")
        found.add(HostPort(Protocol[name.upper()], checks.port("host_ports", int(port))))
    return tuple(sorted(found, key=lambda one: (one.protocol, one.port)))
