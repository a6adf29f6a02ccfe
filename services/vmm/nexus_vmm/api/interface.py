"""Checking the network interface that a caller asks for."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field
from nexus_vmm.vm import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nexus.vmm.v1 import vmm_pb2

MAX_DNS = 5
MAX_SEARCH = 6
LEAST_MTU, MOST_MTU = 1_280, 65_521  # the least of IPv6 (RFC 8200), and the most of a TAP (tun.c)

# IFNAMSIZ is 16 with its NUL; "/" and white space are what the kernel itself refuses.
_TAP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")


def check_interface(field: str, message: vmm_pb2.NetworkInterface) -> Network:
    """Return the interface in `message`, the value of `field`. Raises InvalidArgument."""
    if _TAP.fullmatch(message.tap) is None:
        raise invalid_field(f"{field}.tap", message.tap, "the TAP's name, at most 15 characters")
    # The lowest bit of the first byte marks a group address, which no interface may have.
    if _MAC.fullmatch(message.mac) is None or int(message.mac[:2], 16) & 1:
        raise invalid_field(f"{field}.mac", message.mac, 'a unicast MAC, "02:fc:00:00:00:01"')
    ipv4, gateway = _ipv4(field, message)
    ipv6, ipv6_gateway = _ipv6(field, message) if message.ipv6 else _no_ipv6(field, message)
    _at_most(f"{field}.dns", message.dns, MAX_DNS, "servers")
    _at_most(f"{field}.search", message.search, MAX_SEARCH, "domains")
    for domain in message.search:
        if _DOMAIN.fullmatch(domain) is None:
            raise invalid_field(f"{field}.search", domain, 'a domain name, "example.org"')
    return Network(
        tap=message.tap,
        mac=message.mac.lower(),
        ipv4=ipv4,
        gateway=gateway,
        dns=tuple(_server(f"{field}.dns", server) for server in message.dns),
        ipv6=ipv6,
        ipv6_gateway=ipv6_gateway,
        search=tuple(message.search),
        mtu=_mtu(f"{field}.mtu", message.mtu),
    )


def _ipv4(field: str, message: vmm_pb2.NetworkInterface) -> tuple[str, str]:
    """Return address and gateway."""
    try:
        interface = ipaddress.IPv4Interface(message.ipv4)
    except ValueError:
        interface = None
    if interface is None or "/" not in message.ipv4 or interface.network.prefixlen > 30:
        raise invalid_field(
            f"{field}.ipv4", message.ipv4, 'an address with its prefix, "172.16.0.2/12"'
        )
    network = interface.network
    if interface.ip in (network.network_address, network.broadcast_address):
        raise invalid_field(f"{field}.ipv4", message.ipv4, f"a host's address of {network}")
    try:
        gateway = ipaddress.IPv4Address(message.gateway)
    except ValueError:
        gateway = interface.ip
    if gateway not in network or gateway == interface.ip:
        raise invalid_field(f"{field}.gateway", message.gateway, f"another address of {network}")
    return str(interface), str(gateway)


def _ipv6(field: str, message: vmm_pb2.NetworkInterface) -> tuple[str, str]:
    """Return address and gateway."""
    try:
        interface = ipaddress.IPv6Interface(message.ipv6)
    except ValueError:
        interface = None
    scoped = "%" in message.ipv6 or "%" in message.ipv6_gateway  # "fe80::1%eth0" (RFC 4007)
    if interface is None or scoped or "/" not in message.ipv6 or not _is_host(interface.ip):
        raise invalid_field(
            f"{field}.ipv6", message.ipv6, 'an address with its prefix, "fd6e:6578:7573::2/128"'
        )
    try:
        gateway = ipaddress.IPv6Address(message.ipv6_gateway)
    except ValueError:
        gateway = interface.ip
    if gateway == interface.ip or not _is_host(gateway):
        raise invalid_field(
            f"{field}.ipv6_gateway", message.ipv6_gateway, "another IPv6 address than the guest's"
        )
    return str(interface), str(gateway)


def _no_ipv6(field: str, message: vmm_pb2.NetworkInterface) -> tuple[str, str]:
    if message.ipv6_gateway:
        raise invalid_field(f"{field}.ipv6_gateway", message.ipv6_gateway, "empty without ipv6")
    return "", ""


def _mtu(field: str, value: int) -> int:
    if value and not LEAST_MTU <= value <= MOST_MTU:
        raise invalid_field(field, value, f"{LEAST_MTU:,} to {MOST_MTU:,} bytes, or 0")
    return value


def _is_host(address: ipaddress.IPv6Address) -> bool:
    """Whether an interface can have it, and others can reach it without naming a link."""
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
    )


def _server(field: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise invalid_field(field, value, "an IP address") from None


def _at_most(field: str, values: Sequence[str], most: int, what: str) -> None:
    if len(values) > most:
        raise invalid_field(field, list(values), f"at most {most} {what}")
