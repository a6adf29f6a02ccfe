"""What netd keeps: networks, ports, what ports may reach, and the ways into and between them.

Values only; a `Guest` is a port with everything resolved, as the kernel is to have it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nexus_netd.subnet import Subnet

Address = IPv4Address | IPv6Address
Cidr = IPv4Network | IPv6Network

CONNECTIONS = 4_096
"""Connections that a port may have at one time where nothing else is said."""


class Protocol(IntEnum):
    """What a packet carries, by its number in IPv4 (IANA); ICMP stands for ICMPv6 in IPv6."""

    ANY = 0
    ICMP = 1
    TCP = 6
    UDP = 17


class Mode(Enum):
    """How a policy decides; the value is what the store holds."""

    OPEN = "open"
    NONE = "none"
    RULES = "rules"


@dataclass(frozen=True)
class EgressRule:
    """One rule: `cidr`, or `domain` ("pypi.org", "*.pypi.org"), or neither, which is anywhere.

    `ports` are the first and last destination port, None for all; only with TCP and UDP.
    """

    allow: bool = True
    cidr: Cidr | None = None
    domain: str = ""
    protocol: Protocol = Protocol.ANY
    ports: tuple[int, int] | None = None


@dataclass(frozen=True)
class Policy:
    """What a port may reach: the first rule that matches decides, what none matches is refused."""

    mode: Mode = Mode.OPEN
    rules: tuple[EgressRule, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Bytes and packets a second, and connections at one time. 0: the network's, or none."""

    egress_bytes: int = 0
    ingress_bytes: int = 0
    egress_packets: int = 0
    ingress_packets: int = 0
    connections: int = 0

    def over(self, other: Limits) -> Limits:
        """Return these limits, with what they leave out taken from `other`."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return Limits(**{name: value or getattr(other, name) for name, value in mine.items()})


@dataclass(frozen=True)
class HostPort:
    """A service of the host that guests may reach on their gateway: TCP or UDP, and its port."""

    protocol: Protocol
    port: int


@dataclass(frozen=True)
class NetworkSpec:
    """A network. `bridge` is the name of its first bridge; MTU in bytes."""

    name: str
    bridge: str
    subnet: Subnet
    ipv6: IPv6Network | None = None
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int = 1_500
    default_policy: Policy = Policy()
    default_limits: Limits = Limits()
    host_ports: tuple[HostPort, ...] = ()

    @property
    def gateway(self) -> IPv4Address:
        """The host's address on it."""
        return self.subnet.gateway.ip

    @property
    def ipv6_gateway(self) -> IPv6Address | None:
        """The host's IPv6 address on it."""
        return self.ipv6[1] if self.ipv6 else None


@dataclass(frozen=True)
class Port:
    """A VM's lease, as stored.

    `number` counts ports up, `host` is the address's place in the subnet. `policy` and `limits` are
    its own; None and 0 mean the network's. `created` is in Unix seconds.
    """

    number: int
    vm_id: str
    network: str
    host: int
    bridge: str
    tap: str
    mac: str
    created: float
    policy: Policy | None = None
    limits: Limits = Limits()
    upstream_dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    vm_name: str = ""


@dataclass(frozen=True)
class Guest:
    """A port with everything resolved: who is behind a TAP, and what holds for it."""

    vm_id: str
    tap: str
    bridge: str
    mac: str
    mtu: int
    ipv4: IPv4Address
    gateway: IPv4Address
    ipv6: IPv6Address | None
    ipv6_gateway: IPv6Address | None
    policy: Policy
    policy_number: int
    limits: Limits

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its addresses: IPv4, and IPv6 where that is on."""
        return (self.ipv4,) if self.ipv6 is None else (self.ipv4, self.ipv6)


@dataclass(frozen=True)
class Link:
    """A way from one VM to another. `ports` empty: all; they go with TCP and UDP only."""

    from_vm_id: str
    to_vm_id: str
    protocol: Protocol = Protocol.ANY
    ports: tuple[int, ...] = ()


@dataclass(frozen=True)
class Publication:
    """A port of the host, forwarded to a VM. An unspecified `host_ip` means all addresses."""

    vm_id: str
    host_ip: Address
    host_port: int
    guest_port: int
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True)
class Pin:
    """An address that a guest was given for a name, good until `expires` (Unix seconds)."""

    vm_id: str
    domain: str
    address: Address
    slot: int
    expires: float
