"""The composition root: what the resolver is made of, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus.netd.v1 import resolver_pb2_grpc
from nexus_dns import metrics
from nexus_dns.driver import Driver
from nexus_dns.listeners import HOST, Listeners
from nexus_dns.resolver import Resolver
from nexus_dns.servers import HostServers
from nexus_dns.servicer import Servicer
from nexus_dns.upstream import Servers
from nexus_dns.view import View
from nexus_rpc.server import Binding, ServerError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from nexus_dns.settings import Settings


async def compose(
    settings: Settings, stack: AsyncExitStack, tasks: asyncio.TaskGroup
) -> Sequence[Binding]:
    """Open what the service needs and start its work; see `nexus_rpc.server.main`."""
    view = View()
    driver = Driver()
    resolver = Resolver(view, Servers(HostServers()), driver)
    listeners = Listeners(resolver, settings.port, tasks)
    stack.callback(listeners.close)
    try:
        await listeners.listen_for_host()
    except OSError as error:
        raise ServerError(
            f"cannot listen on {HOST} port {settings.port}: {error};"
            " end what listens there, or set another port"
        ) from error
    metrics.observe("in_flight", resolver.in_flight, "Queries that wait for a server or a pin")
    metrics.observe("tcp.connections", listeners.connections, "TCP connections of clients")
    tasks.create_task(listeners.follow(view))
    return [
        Binding(
            "nexus.netd.v1.ResolverService",
            resolver_pb2_grpc.add_ResolverServiceServicer_to_server,
            Servicer(view, driver),
            stopping=driver.vacate,
        )
    ]
