"""The network that a guest is to have, and setting it."""

from __future__ import annotations

import re
import socket

from nexus_guest import fields
from nexus_guest.errors import invalid
from nexus_guest.rtnetlink import Rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK = 1  # The index of `lo` in every network namespace.


class Network:
    """One interface, found by its hardware address: address, default gateway and DNS servers."""

    __slots__ = ("address", "dns", "gateway", "mac", "prefix")

    def __init__(
        self, *, mac: bytes, address: bytes, prefix: int, gateway: bytes, dns: list[str]
    ) -> None:
        self.mac = mac
        self.address = address
        self.prefix = prefix
        self.gateway = gateway
        self.dns = dns

    @classmethod
    def of(cls, message: Mapping[str, object]) -> Network:
        """Read `{mac, ipv4, gateway, dns}`. GuestError INVALID_FIELD."""
        mac = fields.text(message, "mac")
        if not re.fullmatch("([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", mac):
            raise invalid("mac", mac, "a hardware address such as 02:fc:00:00:00:01")
        ipv4 = fields.text(message, "ipv4")
        address, _, prefix = ipv4.partition("/")
        if not re.fullmatch("[0-9]{1,2}", prefix) or not int(prefix) <= 32:
            raise invalid("ipv4", ipv4, "an address with its prefix, such as 172.16.0.2/12")
        dns = fields.texts(message, "dns")
        for server in dns:
            _packed("dns", server, socket.AF_INET6 if ":" in server else socket.AF_INET)
        return cls(
            mac=bytes.fromhex(mac.replace(":", "")),
            address=_packed("ipv4", address),
            prefix=int(prefix),
            gateway=_packed("gateway", fields.text(message, "gateway")),
            dns=dns,
        )

    def apply(self) -> None:
        """Set addresses and route, as often as asked. OSError with what failed."""
        rtnetlink = Rtnetlink()
        try:
            rtnetlink.set_up(_LOOPBACK)
            index = rtnetlink.find_link(self.mac)
            if index is None:
                raise OSError(f"no interface with hardware address {self.mac.hex(':')}")
            wanted = (self.address, self.prefix)
            for address, prefix in rtnetlink.addresses(index) - {wanted}:
                rtnetlink.delete_address(index, address, prefix)
            rtnetlink.add_address(index, *wanted)
            rtnetlink.set_up(index)
            rtnetlink.set_default_route(index, self.gateway)
        finally:
            rtnetlink.close()


def _packed(field: str, address: str, family: int = socket.AF_INET) -> bytes:
    try:
        return socket.inet_pton(family, address)
    except OSError:
        raise invalid(field, address, "an IP address") from None
