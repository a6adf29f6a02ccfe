"""The agent outside of a VM: the same ports as unix sockets, the machine left alone. For tests."""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nexus_guest.network import Network


class Bystander:
    """A machine that is not the agent's to configure."""

    def configure(self, hostname: str, network: Network | None) -> list[str]:
        """Change nothing, and say so in a warning."""
        address = "network" if network is None else socket.inet_ntoa(network.ipv4.address)
        return [f"not in a VM: hostname {hostname} and {address} are not set"]

    def shut_down(self) -> None:
        """End the agent instead of the machine."""
        os._exit(0)
