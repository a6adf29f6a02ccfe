"""The composition of netd: everything is opened and wired here, and closed in reverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import netd_pb2_grpc
from nexus_netd.follow import Follower
from nexus_netd.leases import MIGRATIONS, Leases
from nexus_netd.linux import Linux
from nexus_netd.metrics import count_ports
from nexus_netd.netd import Netd
from nexus_netd.network import Network
from nexus_netd.once import Once
from nexus_netd.ports import Ports
from nexus_netd.servicer import NAME, Servicer
from nexus_netd.settings import dns_servers, owner_uid
from nexus_netd.subnet import Subnet
from nexus_rpc import vms
from nexus_rpc.database import Database
from nexus_rpc.server import Binding

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from nexus_netd.settings import Settings


async def compose(
    settings: Settings, stack: AsyncExitStack, tasks: asyncio.TaskGroup
) -> Sequence[Binding]:
    """Open store and kernel, reconcile them, follow vmm; see `nexus_rpc.server.main`."""
    subnet = Subnet.parse(settings.subnet)
    # Before anything is opened: what this host cannot give.
    owner, dns = owner_uid(settings), dns_servers(settings)
    database = await Database.open(settings.state_dir / "netd.db", MIGRATIONS)
    stack.push_async_callback(database.close)
    leases = await Leases.open(database, subnet)
    kernel = await Linux.open()
    stack.push_async_callback(kernel.close)
    network = Network(kernel, settings.bridge, subnet, settings.mtu)
    ports = Ports(
        kernel,
        leases,
        bridge=settings.bridge,
        subnet=subnet,
        mtu=settings.mtu,
        owner=owner,
    )
    netd = Netd(network, ports, leases)
    count_ports(leases)
    await netd.reconcile()
    tasks.create_task(netd.guard())
    tasks.create_task(Follower(netd).run(vms.follow(settings.vmm)))
    told = pb.Network(
        bridge=settings.bridge,
        subnet=str(subnet.network),
        gateway=str(subnet.gateway.ip),
        dns=dns,
        mtu=settings.mtu,
    )
    servicer = Servicer(netd, Once(database), told, subnet)
    return [Binding(NAME, netd_pb2_grpc.add_NetworkServiceServicer_to_server, servicer)]
