"""nexus.netd.v1.NetworkService: messages in, messages out."""

# ruff: noqa: ARG002  # gRPC gives each method a context

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import netd_pb2_grpc
from nexus_netd import checks, convert, requested
from nexus_netd.kernel import Counters
from nexus_netd.operations import obstacles
from nexus_netd.records.networks import DEFAULT
from nexus_netd.reports import inquiry
from nexus_rpc import paging
from nexus_rpc.errors import invalid_field
from nexus_rpc.ids import check_vm_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc

    from nexus_netd.model import NetworkSpec, Port
    from nexus_netd.netd import Netd
    from nexus_netd.once import Once
    from nexus_netd.records.store import Store
    from nexus_netd.reports.denials import Denials

    Context = grpc.aio.ServicerContext[Any, Any]

NAME = pb.DESCRIPTOR.services_by_name["NetworkService"].full_name
MOST_LAST = 1_000


class Servicer(netd_pb2_grpc.NetworkServiceServicer):
    """Converts; `Netd` acts."""

    def __init__(self, netd: Netd, once: Once, store: Store, denials: Denials) -> None:
        self._netd = netd
        self._once = once
        self._store = store
        self._denials = denials

    async def EnsureNetwork(
        self, request: pb.EnsureNetworkRequest, context: Context
    ) -> pb.EnsureNetworkResponse:
        """See netd.proto, as for all that follow."""

        async def do() -> pb.EnsureNetworkResponse:
            repaired = await self._netd.ensure()
            spec = self._netd.view().networks[DEFAULT]
            return pb.EnsureNetworkResponse(network=self._network(spec), repaired=repaired)

        return await self._once.call(request, pb.EnsureNetworkResponse, do, again=do)

    async def CreateNetwork(
        self, request: pb.CreateNetworkRequest, context: Context
    ) -> pb.CreateNetworkResponse:
        spec = requested.network(request.network)

        async def do() -> pb.CreateNetworkResponse:
            made = await self._netd.create_network(spec)
            return pb.CreateNetworkResponse(network=self._network(made))

        return await self._once.call(request, pb.CreateNetworkResponse, do)

    async def UpdateNetwork(
        self, request: pb.UpdateNetworkRequest, context: Context
    ) -> pb.UpdateNetworkResponse:
        name = checks.network_name("network.name", request.network.name)
        before = self._netd.state.network(name)
        spec = requested.changed(before, request.network, request.clear)

        async def do() -> pb.UpdateNetworkResponse:
            await self._netd.update_network(spec)
            return pb.UpdateNetworkResponse(network=self._network(spec))

        return await self._once.call(request, pb.UpdateNetworkResponse, do)

    async def DeleteNetwork(
        self, request: pb.DeleteNetworkRequest, context: Context
    ) -> pb.DeleteNetworkResponse:
        name = checks.network_name("name", request.name)

        async def do() -> pb.DeleteNetworkResponse:
            return pb.DeleteNetworkResponse(deleted=await self._netd.delete_network(name))

        return await self._once.call(request, pb.DeleteNetworkResponse, do)

    async def GetNetwork(
        self, request: pb.GetNetworkRequest, context: Context
    ) -> pb.GetNetworkResponse:
        spec = self._netd.state.network(checks.network_name("name", request.name or DEFAULT))
        warnings = await obstacles.of_network(self._netd.state, spec.name)
        return pb.GetNetworkResponse(network=self._network(spec, warnings))

    async def ListNetworks(
        self, request: pb.ListNetworksRequest, context: Context
    ) -> pb.ListNetworksResponse:
        specs = sorted(self._netd.view().networks.items())
        return pb.ListNetworksResponse(networks=[self._network(spec) for _, spec in specs])

    async def MigrateNetwork(
        self, request: pb.MigrateNetworkRequest, context: Context
    ) -> pb.MigrateNetworkResponse:
        name = checks.network_name("name", request.name)
        subnet = checks.subnet("subnet", request.subnet)

        async def do() -> pb.MigrateNetworkResponse:
            guests = await self._netd.migrate_network(name, subnet)
            view = self._netd.view()
            return pb.MigrateNetworkResponse(
                network=self._network(view.networks[name]),
                ports=[
                    convert.port(view, guest.vm_id) for guest in guests if guest.vm_id in view.ports
                ],
            )

        return await self._once.call(request, pb.MigrateNetworkResponse, do)

    async def AttachPort(
        self, request: pb.AttachPortRequest, context: Context
    ) -> pb.AttachPortResponse:
        asked = requested.attach(request)

        async def do() -> pb.AttachPortResponse:
            await self._netd.attach(asked)
            return pb.AttachPortResponse(port=self._port(asked.vm_id))

        async def again() -> pb.AttachPortResponse:
            # A late repeat must not bring back what was detached since.
            self._netd.state.port(asked.vm_id)
            return await do()

        return await self._once.call(request, pb.AttachPortResponse, do, again)

    async def DetachPort(
        self, request: pb.DetachPortRequest, context: Context
    ) -> pb.DetachPortResponse:
        vm_id = check_vm_id("vm_id", request.vm_id)

        async def do() -> pb.DetachPortResponse:
            return pb.DetachPortResponse(detached=await self._netd.detach(vm_id))

        return await self._once.call(request, pb.DetachPortResponse, do)

    async def GetPort(self, request: pb.GetPortRequest, context: Context) -> pb.GetPortResponse:
        found = self._port(check_vm_id("vm_id", request.vm_id))
        guest = self._netd.view().guests[found.vm_id]
        kernel = self._netd.state.kernel
        through = await kernel.counters_of(guest.tap) or Counters(0, 0, 0, 0, 0)
        flows = await kernel.flows(guest.addresses)
        found.counters.CopyFrom(
            convert.counters(
                through,
                await kernel.denied_of(guest),
                sum(flow.source in guest.addresses and not flow.closed for flow in flows),
            )
        )
        return pb.GetPortResponse(port=found)

    async def ListPorts(
        self, request: pb.ListPortsRequest, context: Context
    ) -> pb.ListPortsResponse:
        size = paging.page_size(request.page_size)
        network = request.network and self._netd.state.network(request.network).name
        # One more than asked for tells whether there is a next page.
        ports = await self._store.leases.page(paging.decode(request.page_token), size + 1, network)
        token = paging.encode(ports[size - 1].number) if len(ports) > size else ""
        return pb.ListPortsResponse(ports=self._ports(ports[:size]), next_page_token=token)

    async def SetPolicy(
        self, request: pb.SetPolicyRequest, context: Context
    ) -> pb.SetPolicyResponse:
        vm_id = check_vm_id("vm_id", request.vm_id)
        policy = requested.policy("policy", request.policy)

        async def do() -> pb.SetPolicyResponse:
            cut = await self._netd.set_policy(vm_id, policy)
            return pb.SetPolicyResponse(port=self._port(vm_id), cut=cut)

        return await self._once.call(request, pb.SetPolicyResponse, do)

    async def SetLimits(
        self, request: pb.SetLimitsRequest, context: Context
    ) -> pb.SetLimitsResponse:
        vm_id = check_vm_id("vm_id", request.vm_id)
        limits = requested.limits("limits", request.limits)

        async def do() -> pb.SetLimitsResponse:
            await self._netd.set_limits(vm_id, limits)
            return pb.SetLimitsResponse(port=self._port(vm_id))

        return await self._once.call(request, pb.SetLimitsResponse, do)

    async def CreateLink(
        self, request: pb.CreateLinkRequest, context: Context
    ) -> pb.CreateLinkResponse:
        link = requested.link(request.link)

        async def do() -> pb.CreateLinkResponse:
            await self._netd.link(link)
            return pb.CreateLinkResponse(link=convert.link(link))

        return await self._once.call(request, pb.CreateLinkResponse, do)

    async def DeleteLink(
        self, request: pb.DeleteLinkRequest, context: Context
    ) -> pb.DeleteLinkResponse:
        link = requested.link(request.link)

        async def do() -> pb.DeleteLinkResponse:
            return pb.DeleteLinkResponse(deleted=await self._netd.unlink(link))

        return await self._once.call(request, pb.DeleteLinkResponse, do)

    async def ListLinks(
        self, request: pb.ListLinksRequest, context: Context
    ) -> pb.ListLinksResponse:
        size = paging.page_size(request.page_size)
        vm_id = request.vm_id and check_vm_id("vm_id", request.vm_id)
        found = await self._store.links.page(paging.decode(request.page_token), size + 1, vm_id)
        return pb.ListLinksResponse(
            links=[convert.link(link) for _, link in found[:size]],
            next_page_token=_next([number for number, _ in found], size),
        )

    async def PublishPort(
        self, request: pb.PublishPortRequest, context: Context
    ) -> pb.PublishPortResponse:
        publication = requested.publication(request.publication)

        async def do() -> pb.PublishPortResponse:
            await self._netd.publish(publication)
            return pb.PublishPortResponse(publication=convert.publication(publication))

        return await self._once.call(request, pb.PublishPortResponse, do)

    async def UnpublishPort(
        self, request: pb.UnpublishPortRequest, context: Context
    ) -> pb.UnpublishPortResponse:
        host_ip = checks.address("host_ip", request.host_ip or "127.0.0.1")
        host_port = checks.port("host_port", request.host_port)
        protocol = requested.service("protocol", request.protocol)

        async def do() -> pb.UnpublishPortResponse:
            gone = await self._netd.unpublish(protocol, host_ip, host_port)
            return pb.UnpublishPortResponse(unpublished=gone)

        return await self._once.call(request, pb.UnpublishPortResponse, do)

    async def ListPublications(
        self, request: pb.ListPublicationsRequest, context: Context
    ) -> pb.ListPublicationsResponse:
        size = paging.page_size(request.page_size)
        vm_id = request.vm_id and check_vm_id("vm_id", request.vm_id)
        after = paging.decode(request.page_token)
        found = await self._store.publications.page(after, size + 1, vm_id)
        return pb.ListPublicationsResponse(
            publications=[convert.publication(one) for _, one in found[:size]],
            next_page_token=_next([number for number, _ in found], size),
        )

    async def ExplainFlow(
        self, request: pb.ExplainFlowRequest, context: Context
    ) -> pb.ExplainFlowResponse:
        return await inquiry.answer(self._netd.state, self._denials, request)

    async def WatchDenials(
        self, request: pb.WatchDenialsRequest, context: Context
    ) -> AsyncIterator[pb.WatchDenialsResponse]:
        vm_id = request.vm_id and check_vm_id("vm_id", request.vm_id)
        if request.last > MOST_LAST:
            raise invalid_field("last", request.last, f"at most {MOST_LAST:,}")
        async for one in self._denials.watch(vm_id, request.last, follow=request.follow):
            yield convert.denial(one)

    async def WatchNetwork(
        self, request: pb.WatchNetworkRequest, context: Context
    ) -> AsyncIterator[pb.WatchNetworkResponse]:
        vm_id = request.vm_id and check_vm_id("vm_id", request.vm_id)
        with self._netd.state.feed.watch(vm_id) as happenings:
            await context.send_initial_metadata(())  # the caller can wait for it: "now on" is now
            async for one in happenings:
                yield convert.happening(one)

    async def CleanupNetwork(
        self, request: pb.CleanupNetworkRequest, context: Context
    ) -> pb.CleanupNetworkResponse:
        async def do() -> pb.CleanupNetworkResponse:
            removed = await self._netd.cleanup(force=request.force)
            return pb.CleanupNetworkResponse(
                taps=removed.taps,
                bridges=removed.bridges,
                tables=removed.tables,
                leases=removed.leases,
                ways=removed.ways,
            )

        return await self._once.call(request, pb.CleanupNetworkResponse, do)

    def _network(self, spec: NetworkSpec, warnings: Sequence[str] = ()) -> pb.Network:
        return convert.network(spec, self._netd.view().port_count(spec.name), warnings)

    def _port(self, vm_id: str) -> pb.Port:
        self._netd.state.port(vm_id)
        return convert.port(self._netd.view(), vm_id)

    def _ports(self, ports: Sequence[Port]) -> list[pb.Port]:
        return [convert.port(self._netd.view(), port.vm_id) for port in ports]


def _next(numbers: Sequence[int], size: int) -> str:
    return paging.encode(numbers[size - 1]) if len(numbers) > size else ""
