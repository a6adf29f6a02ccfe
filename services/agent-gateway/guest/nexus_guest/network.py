"""The network that a guest is to have, and setting it."""

from __future__ import annotations

import re
import socket
from contextlib import closing, suppress

from nexus_guest import fields
from nexus_guest.errors import invalid
from nexus_guest.rtnetlink import Rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK = 1  # The index of `lo` in every network namespace.


_MAC = re.compile("([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
_MOST_MTU = 65_521  # of a TAP (tun.c), which is the other end
_DOMAIN = re.compile("[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_BITS: dict[int, int] = {socket.AF_INET: 32, socket.AF_INET6: 128}


class Way:
    """Addresses of one family: the guest's with its prefix length, and the default gateway."""

    __slots__ = ("address", "gateway", "prefix")

    def __init__(self, address: bytes, prefix: int, gateway: bytes) -> None:
        self.address = address
        self.prefix = prefix
        self.gateway = gateway


class Network:
    """One interface, found by its hardware address: its ways out, DNS servers, search domains.

    `mtu` is in bytes; 0 leaves it as it is.
    """

    __slots__ = ("dns", "ipv4", "ipv6", "mac", "mtu", "search")

    def __init__(
        self,
        *,
        mac: bytes,
        ipv4: Way,
        ipv6: Way | None,
        dns: list[str],
        search: list[str],
        mtu: int,
    ) -> None:
        self.mac = mac
        self.mtu = mtu
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.dns = dns
        self.search = search

    @classmethod
    def of(cls, message: Mapping[str, object]) -> Network:
        """Read `{mac, ipv4, gateway, dns, ipv6, ipv6_gateway, search, mtu}`; the first 3 must be.

        GuestError INVALID_FIELD.
        """
        mac = fields.text(message, "mac")
        if not _MAC.fullmatch(mac):
            raise invalid("mac", mac, "a hardware address such as 02:fc:00:00:00:01")
        dns = fields.texts(message, "dns")
        for server in dns:
            _packed("dns", server, socket.AF_INET6 if ":" in server else socket.AF_INET)
        search = fields.texts(message, "search")
        for domain in search:
            if not _DOMAIN.fullmatch(domain):
                raise invalid("search", domain, "a domain name such as example.org")
        return cls(
            mac=bytes.fromhex(mac.replace(":", "")),
            ipv4=_way(message, "ipv4", "gateway", socket.AF_INET),
            ipv6=_way(message, "ipv6", "ipv6_gateway", socket.AF_INET6)
            if fields.text(message, "ipv6", "")
            else None,
            dns=dns,
            search=search,
            mtu=fields.number(message, "mtu", 0, _MOST_MTU),
        )

    def apply(self) -> None:
        """Set the IPv4 address and route, as often as asked. OSError with what failed."""
        with closing(Rtnetlink()) as rtnetlink:
            rtnetlink.set_up(_LOOPBACK)
            index = rtnetlink.find_link(self.mac)
            if index is None:
                raise OSError(f"no interface with hardware address {self.mac.hex(':')}")
            if self.mtu:
                rtnetlink.set_mtu(index, self.mtu)
            _replace(rtnetlink, index, socket.AF_INET, self.ipv4)
            rtnetlink.set_up(index)
            rtnetlink.set_default_route(index, self.ipv4.gateway)

    def apply_ipv6(self) -> None:
        """Set the IPv6 address and route after `apply`, or take away what was set before.

        OSError with what failed: a kernel without IPv6, for instance.
        """
        with closing(Rtnetlink()) as rtnetlink:
            index = rtnetlink.find_link(self.mac)
            if index is None:
                return  # `apply` has said so
            had = _replace(rtnetlink, index, socket.AF_INET6, self.ipv6)
            if self.ipv6 is not None:
                rtnetlink.set_default_route(index, self.ipv6.gateway)
            elif had:
                # It would lead programs to send with the link's address, which reaches nobody.
                with suppress(ProcessLookupError):  # ESRCH: there is no such route
                    rtnetlink.delete_default_route(index, socket.AF_INET6)


def _replace(rtnetlink: Rtnetlink, index: int, family: int, way: Way | None) -> bool:
    """Leave the interface with this address of the family only. Returns whether it had others."""
    wanted = set() if way is None else {(way.address, way.prefix)}
    others = rtnetlink.addresses(index, family) - wanted
    for address, prefix in others:
        rtnetlink.delete_address(index, address, prefix)
    for address, prefix in wanted:
        rtnetlink.add_address(index, address, prefix)
    return bool(others)


def _way(message: Mapping[str, object], field: str, gateway: str, family: int) -> Way:
    text = fields.text(message, field)
    address, _, prefix = text.partition("/")
    if not re.fullmatch("[0-9]{1,3}", prefix) or not int(prefix) <= _BITS[family]:
        raise invalid(field, text, "an address with its prefix, such as 172.16.0.2/12")
    return Way(
        _packed(field, address, family),
        int(prefix),
        _packed(gateway, fields.text(message, gateway), family),
    )


def _packed(field: str, address: str, family: int) -> bytes:
    try:
        return socket.inet_pton(family, address)
    except OSError:
        raise invalid(field, address, "an IP address") from None
