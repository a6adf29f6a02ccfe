"""Checking what a caller asked for, and the defaults of what it left out."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field
from nexus_vmm.vm import Network, Spec

if TYPE_CHECKING:
    from nexus.vmm.v1 import vmm_pb2

# Default, least, most: of the fields that hold a number (see vmm.proto).
NUMBERS: dict[str, tuple[int, int, int]] = {
    "vcpu_count": (1, 1, 32),
    "memory_mib": (128, 80, 65_536),  # Debian's kernel panics below 72
    "disk_mib": (2_048, 16, 1_048_576),
}
NAMES = {"image": "debian", "kernel": "default"}
MAX_DNS = 5

_ASSET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
# IFNAMSIZ is 16 with its NUL; "/" and white space are what the kernel itself refuses.
_TAP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def check_spec(message: vmm_pb2.VmSpec) -> Spec:
    """Return the spec in `message`, with defaults. Raises InvalidArgument (INVALID_FIELD)."""
    return Spec(
        vcpu_count=_number("vcpu_count", message.vcpu_count),
        memory_mib=_number("memory_mib", message.memory_mib),
        image=_asset("image", message.image),
        kernel=_asset("kernel", message.kernel),
        disk_mib=_number("disk_mib", message.disk_mib),
        network=_network(message.network) if message.HasField("network") else None,
        balloon=message.balloon,
    )


def _number(field: str, value: int) -> int:
    default, least, most = NUMBERS[field]
    if value == 0:
        return default
    if not least <= value <= most:
        raise invalid_field(f"spec.{field}", value, f"{least} to {most}")
    return value


def _asset(field: str, value: str) -> str:
    if not value:
        return NAMES[field]
    if _ASSET.fullmatch(value) is None:
        raise invalid_field(
            f"spec.{field}",
            value,
            "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        )
    return value


def _network(message: vmm_pb2.NetworkInterface) -> Network:
    if _TAP.fullmatch(message.tap) is None:
        raise invalid_field(
            "spec.network.tap", message.tap, "the TAP's name, at most 15 characters"
        )
    # The lowest bit of the first byte marks a group address, which no interface may have.
    if _MAC.fullmatch(message.mac) is None or int(message.mac[:2], 16) & 1:
        raise invalid_field("spec.network.mac", message.mac, 'a unicast MAC, "02:fc:00:00:00:01"')
    interface = _interface(message.ipv4)
    gateway = _address("spec.network.gateway", message.gateway)
    if gateway not in interface.network or gateway == interface.ip:
        raise invalid_field(
            "spec.network.gateway", message.gateway, f"another address of {interface.network}"
        )
    if len(message.dns) > MAX_DNS:
        raise invalid_field("spec.network.dns", list(message.dns), f"at most {MAX_DNS} servers")
    return Network(
        tap=message.tap,
        mac=message.mac.lower(),
        ipv4=str(interface),
        gateway=str(gateway),
        dns=tuple(str(_address("spec.network.dns", server)) for server in message.dns),
    )


def _interface(value: str) -> ipaddress.IPv4Interface:
    try:
        interface = ipaddress.IPv4Interface(value)
    except ValueError:
        interface = None
    if interface is None or "/" not in value or interface.network.prefixlen > 30:
        raise invalid_field(
            "spec.network.ipv4", value, 'an address with its prefix, "172.16.0.2/12"'
        )
    if interface.ip in (interface.network.network_address, interface.network.broadcast_address):
        raise invalid_field("spec.network.ipv4", value, f"a host's address of {interface.network}")
    return interface


def _address(field: str, value: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(value)
    except ValueError:
        raise invalid_field(field, value, "an IPv4 address") from None
