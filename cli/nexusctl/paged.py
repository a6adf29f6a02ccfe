"""Lists that services give a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexus.netd.v1 import netd_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nexusctl.services import Service, Services

PAGE = 500


async def every(service: Service, method: Any, request: Any, field: str) -> AsyncIterator[Any]:  # noqa: ANN401  # any list call
    """Yield all entries of `field`, page by page. Raises NexusError."""
    request.page_size = PAGE
    while True:
        page = await service.ask(method, request)
        for entry in getattr(page, field):
            yield entry
        request.page_token = page.next_page_token
        if not request.page_token:
            return


async def ports(services: Services, network: str = "") -> list[netd_pb2.Port]:
    """Return the ports of a network or of all, oldest first. Raises NexusError."""
    netd = services.netd
    request = netd_pb2.ListPortsRequest(network=network)
    return [port async for port in every(netd, netd.stub.ListPorts, request, "ports")]


async def links(services: Services, vm_id: str = "") -> list[netd_pb2.Link]:
    """Return the links, those from or to one VM where it is named. Raises NexusError."""
    netd = services.netd
    request = netd_pb2.ListLinksRequest(vm_id=vm_id)
    return [link async for link in every(netd, netd.stub.ListLinks, request, "links")]


async def publications(services: Services, vm_id: str = "") -> list[netd_pb2.Publication]:
    """Return what is forwarded, to one VM where it is named. Raises NexusError."""
    netd = services.netd
    request = netd_pb2.ListPublicationsRequest(vm_id=vm_id)
    found = every(netd, netd.stub.ListPublications, request, "publications")
    return [publication async for publication in found]
