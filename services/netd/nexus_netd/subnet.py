"""The arithmetic of the VMs' subnet: who is host number N, and which MAC goes with an address.

Host numbers count from the network address: 0 is the network, 1 the gateway, the last one the
broadcast address. What lies between is for guests.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

SHORTEST_PREFIX = 8
LONGEST_PREFIX = 30  # leaves the gateway and one guest
FIRST_GUEST = 2


@dataclass(frozen=True)
class Subnet:
    """An IPv4 network with a prefix of 8 to 30 bits."""

    network: IPv4Network

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """Return the subnet written as "172.16.0.0/12". Raises ValueError."""
        network = IPv4Network(text)
        if not SHORTEST_PREFIX <= network.prefixlen <= LONGEST_PREFIX:
            raise ValueError(
                f"{text} has a prefix of {network.prefixlen} bits: "
                f"{SHORTEST_PREFIX} to {LONGEST_PREFIX} can be used"
            )
        return cls(network)

    @property
    def gateway(self) -> IPv4Interface:
        """The bridge's address: host number 1."""
        return self.interface(1)

    @property
    def last_guest(self) -> int:
        """The highest host number that a guest may have."""
        return self.network.num_addresses - 2

    @property
    def capacity(self) -> int:
        """How many guests there is room for."""
        return self.last_guest - FIRST_GUEST + 1

    def interface(self, host: int) -> IPv4Interface:
        """Return the address of host number `host` with the subnet's prefix."""
        return IPv4Interface((self.network.network_address + host, self.network.prefixlen))


def mac(address: IPv4Address) -> str:
    """Return the MAC of the holder of `address`: 02:fc, then the four bytes of the address.

    02 marks it as locally administered (IEEE 802), so it meets no manufacturer's.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0xFC, *address.packed))


def numbered_mac(number: int) -> str:
    """Return the MAC of port number `number`, for one whose address's MAC is another's.

    That happens after a network moved: its ports keep their MACs, and their addresses of before are
    given out again. 02:fd, then the number, which no two ports share.
    """
    return ":".join(f"{byte:02x}" for byte in (0x02, 0xFD, *number.to_bytes(4, "big")))
