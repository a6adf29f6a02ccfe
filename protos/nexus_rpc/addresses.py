"""Addresses that no public name has a reason to hold.

A name's owner may answer with any address. Were such an answer pinned, a guest could reach by a
name of its own choice what its policy does not name: DNS rebinding. The resolver strikes such
answers, and netd, which does not trust it, pins none.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's registries of special-purpose addresses; what is only for examples is left out.
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    IPv6Network(text) if ":" in text else IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carriers' NAT (RFC 6598), and 100.100.100.200, metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # metadata
        "169.254.0.0/16",  # link-local (RFC 3927), and 169.254.169.254, metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols' own (RFC 6890)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # measurements in a lab (RFC 2544)
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
        "::/8",  # unspecified, loopback, IPv4-mapped and -compatible
        "64:ff9b:1::/48",  # a network's own NAT64 (RFC 8215)
        "100::/64",  # discarded (RFC 6666)
        "2001::/32",  # Teredo: what it reaches, its server says
        "fc00::/7",  # unique local (RFC 4193), and fd00:ec2::254, metadata
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local, once
        "ff00::/8",  # multicast
    )
)

# Prefixes whose addresses carry an IPv4 address: that one is judged; and the bit it starts at.
_CARRIERS = (
    (IPv6Network("64:ff9b::/96"), 96),  # NAT64 (RFC 6052)
    (IPv6Network("2002::/16"), 16),  # 6to4 (RFC 3056)
)


def is_public(address: Address) -> bool:
    """Tell whether a public name may stand for `address`."""
    if isinstance(address, IPv6Address):
        for prefix, start in _CARRIERS:
            if address in prefix:
                return is_public(IPv4Address(int(address) >> (96 - start) & 0xFFFF_FFFF))
    return not any(address in network for network in _NOT_PUBLIC)


def may_be_given(address: Address, private_ok: Iterable[Network]) -> bool:
    """Tell whether a guest may be given `address`; `private_ok` are those that its rules name.

    Of these only ranges that are private as a whole count: who allows the whole Internet on one
    port did not mean the neighbours on another.
    """
    return is_public(address) or any(
        address in network for network in private_ok if is_private(network)
    )


def is_private(network: Network) -> bool:
    """Tell whether all of `network` lies in one range that is not public."""
    if isinstance(network, IPv6Network):
        for prefix, start in _CARRIERS:
            # With all of the IPv4 address in its prefix it carries but one.
            if network.subnet_of(prefix) and network.prefixlen >= start + 32:
                return not is_public(network.network_address)
    return any(
        network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]  # of one version
        for other in _NOT_PUBLIC
    )
