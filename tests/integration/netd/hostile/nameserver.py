"""The name server outside, and what it says of the names that attacks are made with."""

from contextlib import asynccontextmanager, suppress

from dns.exception import DNSException
from dns_doubles import NameServer
from netns import entered

from tests.integration.netd.hostile.scene import NAME_SERVER, SUBNETS

ADDRESSES = {
    "good.example": "203.1.113.20",
    "brief.example": "203.1.113.21",
    "deep.pkg.example": "203.1.113.22",
    "www.good.example": "203.1.113.30",
    "pkg.example": "203.1.113.31",
    "notgood.example": "203.1.113.32",
    "good.example.other.example": "203.1.113.33",
    "other.example": "203.1.113.34",
    "plain.trap.example": "203.1.113.40",
    "private.trap.example": "10.9.9.9",
    "shared.trap.example": "100.64.9.9",
    "home.trap.example": "192.168.9.9",
    "metadata.trap.example": "169.254.169.254",
    "alibaba.trap.example": "100.100.100.200",
    "azure.trap.example": "168.63.129.16",
    "loopback.trap.example": "127.0.0.1",
    "gateway.trap.example": "172.16.0.1",
    "sibling.trap.example": "172.16.0.3",
    "group.trap.example": "239.1.2.3",
    "nowhere.trap.example": "0.0.0.0",
}
assert SUBNETS[0] == "172.16.0.0/12"  # whose gateway and second guest two of them are
SHORT = {"brief.example": 5}


class Patient(NameServer):
    """A name server that lets pass what is no query."""

    def datagram_received(self, data, address):
        with suppress(DNSException):
            super().datagram_received(data, address)


@asynccontextmanager
async def name_server(outside):
    """Answer at NAME_SERVER outside, while the block runs."""
    outside.ip(f"addr add {NAME_SERVER}/32 dev lo")
    server = Patient(NAME_SERVER)
    for name, address in ADDRESSES.items():
        server.answers[f"{name} A"] = [f"{name} {SHORT.get(name, 300)} A {address}"]
    serving = server.serving()
    with entered(outside.descriptor):
        await serving.__aenter__()
    try:
        yield
    finally:
        await serving.__aexit__(None, None, None)
