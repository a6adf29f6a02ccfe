"""What the driver of the resolver is given: ports to tell of, pins to make, a call that hangs."""

import asyncio
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

from nexus_netd import driver as driving
from nexus_netd.model import (
    Guest,
    Limits,
    NetworkSpec,
    Policy,
    Port,
)
from nexus_netd.subnet import Subnet

SPEC = NetworkSpec(
    "default",
    "nexbr0",
    Subnet(IPv4Network("10.9.0.0/16")),
    IPv6Network("fd00:9::/64"),
    dns=("192.0.2.53",),
)
OPEN = Policy()


class Pins:
    """Stands for Netd.pin."""

    def __init__(self):
        self.made = []
        self.fault = None
        self.many = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def __call__(self, vm_id, domain, addresses, ttl, slots):
        self.made.append((vm_id, domain, addresses, ttl, slots))
        if len(self.made) >= driving.PINS_AT_ONCE:
            self.many.set()
        await self.release.wait()
        if self.fault:
            raise self.fault


def put(view, number, policy=OPEN, network="default", **port):
    """Put a port into the view, with that host number."""
    vm = f"vm{number}"
    guest = Guest(
        vm,
        f"nexus{number}",
        "nexbr0",
        "",
        1500,
        IPv4Address("10.9.0.0") + number,
        SPEC.gateway,
        ip_address("fd00:9::") + number,
        SPEC.ipv6_gateway,
        policy,
        1,
        Limits(),
    )
    view.put_port(
        Port(
            number,
            vm,
            network,
            number,
            "nexbr0",
            guest.tap,
            "",
            0.0,
            vm_name=f"name{number}",
            **port,
        ),
        guest,
    )


def kinds(said):
    """Return what each thing said is, and about whom."""
    return [
        (
            kind := one.WhichOneof("say"),
            getattr(one, kind).vm_id
            if kind == "guest"
            else one.network.name
            if kind == "network"
            else getattr(one, kind),
        )
        for one in said
    ]


class StuckCall:
    """A call whose other side reads and says nothing. Flow control lets megabytes through."""

    def __init__(self):
        self.cancelled = False

    def done(self):
        return False

    def cancel(self):
        self.cancelled = True

    async def write(self, request):
        await asyncio.Event().wait()

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.Event().wait()
