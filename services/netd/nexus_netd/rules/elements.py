"""What networks, ports, links, publications and pins put into the sets of our tables.

An element may come from several of them, as when two host ports lead to one port of a guest: what
goes with one of them is what none of the others has.
"""

from __future__ import annotations

import math
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from nexus_netd.model import CONNECTIONS, HostPort, Protocol
from nexus_netd.rules.policy import wire
from nexus_netd.rules.ruleset import Element, Family, number, pack
from nexus_netd.subnet import mac

if TYPE_CHECKING:
    from collections.abc import Collection

    from nexus_netd.model import Address, Guest, Link, NetworkSpec, Publication
    from nexus_netd.rules.ruleset import Expression

MOST_BYTES, MOST_PACKETS = 10_000_000_000, 100_000_000
"""The highest rates, by the second: nft_limit counts nanoseconds for each byte or packet."""

_SECOND = 1
_PACKETS, _BYTES = 0, 1
_OVER = 1
_LARGEST_PACKET = 65_536
"""With segmentation offload a packet is this large; a bucket must hold it, or it never passes."""

EVENTS, EVENTS_BURST = 10, 20
"""Refused packets of a guest that are told of: by the second, and at once."""


def of_network(spec: NetworkSpec, bridges: Collection[str]) -> tuple[Element, ...]:
    """Return a network's elements; `bridges` are the names of all of its bridges."""
    names = [_name(bridge) for bridge in sorted(bridges)]
    found = [_inet("bridges", name) for name in names]
    found.append(_bridge("gateways_ether", _ether(mac(spec.gateway))))
    for gateway in (spec.gateway, spec.ipv6_gateway):
        if gateway is None:
            continue
        version, address = gateway.version, gateway.packed
        found += [_inet(f"gateways{version}", pack(name, address)) for name in names]
        found += [
            _inet(f"host_ports{version}", pack(address, *_service(one))) for one in spec.host_ports
        ]
    return tuple(found)


def of_guest(guest: Guest) -> tuple[Element, ...]:
    """Return a port's elements, as many for every port with the same kinds of limits."""
    name, ether, limits = _name(guest.tap), _ether(guest.mac), guest.limits
    own: list[Address] = list(guest.addresses)
    if guest.ipv6 is not None:
        own.append(link_local(guest.mac))
    found = [
        _bridge(f"guests{address.version}", pack(name, ether, address.packed)) for address in own
    ]
    found += [
        _bridge("denials", name, guest.ipv4.packed, _COUNTER),
        _bridge("events", name, state=_EVENTS),
        _bridge("pieces_bytes", name, state=_PIECES_BYTES),
        _bridge("pieces_packets", name, state=_PIECES_PACKETS),
    ]
    found += [
        _bridge(table, name, state=_over(rate, kind, burst))
        for table, rate, kind, burst in (
            ("egress_bytes", limits.egress_bytes, _BYTES, _LARGEST_PACKET),
            ("ingress_bytes", limits.ingress_bytes, _BYTES, _LARGEST_PACKET),
            ("egress_packets", limits.egress_packets, _PACKETS, _tenth(limits.egress_packets)),
            ("ingress_packets", limits.ingress_packets, _PACKETS, _tenth(limits.ingress_packets)),
        )
        if rate
    ]
    connections = ("connlimit", (("count", limits.connections or CONNECTIONS), ("flags", _OVER)))
    for address in guest.addresses:
        version, key = address.version, address.packed
        found += [
            _inet(f"policy{version}", key, 2 * number(guest.policy_number)),
            _inet(f"own{version}", 2 * key),
            _inet(f"denials{version}", key, state=_COUNTER),
            _inet(f"events{version}", key, state=_EVENTS),
            _inet(f"connections{version}", key, state=(connections,)),
        ]
    return tuple(found)


def of_link(link: Link, source: Guest, target: Guest) -> tuple[Element, ...]:
    """Return a link's elements, for each version of IP that both guests have."""
    found = []
    for one, other in zip(source.addresses, target.addresses, strict=False):
        for protocol in _protocols(link.protocol):
            key = pack(one.packed, other.packed, wire(protocol, one.version))
            if not link.ports:
                found.append(_inet(f"links{one.version}_all", key))
            found.extend(
                _inet(f"links{one.version}", key + pack(_port(port))) for port in link.ports
            )
    return tuple(found)


def of_publication(publication: Publication, guest: Guest) -> tuple[Element, ...]:
    """Return a publication's elements; none if the guest has no address of its IP version.

    "0.0.0.0" stands for all IPv4 addresses of the host, "::" for all IPv6 addresses.
    """
    host = publication.host_ip
    address = guest.ipv4 if host.version == 4 else guest.ipv6
    if address is None:
        return ()
    protocol, version = wire(publication.protocol, host.version), host.version
    offered = pack(protocol, _port(publication.host_port))
    target = pack(address.packed, _port(publication.guest_port))
    return (
        _inet(f"published{version}_any", offered, target)
        if host.is_unspecified
        else _inet(f"published{version}", pack(host.packed) + offered, target),
        _inet(f"targets{version}", pack(address.packed, protocol, _port(publication.guest_port))),
    )


def of_pin(guest_address: Address, address: Address, slot: int, seconds: float) -> Element:
    """Return what lets a guest reach an address by its policy's rule `slot` for some time."""
    return Element(
        Family.INET,
        f"pins{address.version}",
        pack(guest_address.packed, address.packed) + number(slot),
        timeout=max(1, math.ceil(seconds * 1_000)),
    )


def link_local(ether: str) -> IPv6Address:
    """Return the IPv6 address that a link has by its MAC (RFC 4291, appendix A)."""
    octets = _ether(ether)
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + interface)


def _inet(
    name: str, key: bytes, data: bytes | None = None, state: tuple[Expression, ...] = ()
) -> Element:
    return Element(Family.INET, name, key, data, state)


def _bridge(
    name: str, key: bytes, data: bytes | None = None, state: tuple[Expression, ...] = ()
) -> Element:
    return Element(Family.BRIDGE, name, key, data, state)


def _limit(rate: int, kind: int, burst: int, flags: int) -> tuple[Expression, ...]:
    parameters = (
        ("rate", rate),
        ("unit", _SECOND),
        ("burst", burst),
        ("type", kind),
        ("flags", flags),
    )
    return (("limit", parameters),)


def _over(rate: int, kind: int, burst: int) -> tuple[Expression, ...]:
    return _limit(rate, kind, burst, _OVER)


_COUNTER: tuple[Expression, ...] = (("counter", ()),)
_PIECES_BYTES = _over(20_000, _BYTES, 150_000)
_PIECES_PACKETS = _over(10, _PACKETS, 100)
"""So few that the pieces of one guest that wait for others are less than half of what may wait."""
_EVENTS = _limit(EVENTS, _PACKETS, EVENTS_BURST, 0)


def _tenth(rate: int) -> int:
    """Return how many packets may come at once: what a tenth of a second brings, and some."""
    return max(rate // 10, 8)


def _name(interface: str) -> bytes:
    return interface.encode().ljust(16, b"\0")


def _ether(ether: str) -> bytes:
    return bytes.fromhex(ether.replace(":", ""))


def _port(port: int) -> bytes:
    return port.to_bytes(2, "big")


def _service(one: HostPort) -> tuple[bytes, bytes]:
    return bytes([one.protocol]), _port(one.port)


def _protocols(protocol: Protocol) -> tuple[Protocol, ...]:
    if protocol is Protocol.ANY:
        return (Protocol.TCP, Protocol.UDP, Protocol.ICMP)
    return (protocol,)
