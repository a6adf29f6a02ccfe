"""nexus.netd.v1.NetworkService: messages in, messages out."""

# ruff: noqa: ARG002  # gRPC gives each method a context

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import netd_pb2_grpc
from nexus_netd.subnet import mac
from nexus_rpc import paging
from nexus_rpc.ids import check_vm_id

if TYPE_CHECKING:
    import grpc

    from nexus_netd.leases import Lease
    from nexus_netd.netd import Netd
    from nexus_netd.once import Once
    from nexus_netd.subnet import Subnet

    Context = grpc.aio.ServicerContext[Any, Any]

NAME = pb.DESCRIPTOR.services_by_name["NetworkService"].full_name


class Servicer(netd_pb2_grpc.NetworkServiceServicer):
    """Converts; `Netd` acts."""

    def __init__(self, netd: Netd, once: Once, network: pb.Network, subnet: Subnet) -> None:
        self._netd = netd
        self._once = once
        self._network = network
        self._subnet = subnet

    async def EnsureNetwork(
        self, request: pb.EnsureNetworkRequest, context: Context
    ) -> pb.EnsureNetworkResponse:
        """See netd.proto, as for all that follow."""

        async def do() -> pb.EnsureNetworkResponse:
            repaired = await self._netd.ensure()
            return pb.EnsureNetworkResponse(network=self._network, repaired=repaired)

        return await self._once.call(request, pb.EnsureNetworkResponse, do, again=do)

    async def AttachPort(
        self, request: pb.AttachPortRequest, context: Context
    ) -> pb.AttachPortResponse:
        """Give a VM its port."""
        vm_id = check_vm_id("vm_id", request.vm_id)

        async def do() -> pb.AttachPortResponse:
            return pb.AttachPortResponse(port=self._port(await self._netd.attach(vm_id)))

        async def again() -> pb.AttachPortResponse:
            # A late repeat must not bring back what was detached since.
            await self._netd.get(vm_id)
            return await do()

        return await self._once.call(request, pb.AttachPortResponse, do, again)

    async def DetachPort(
        self, request: pb.DetachPortRequest, context: Context
    ) -> pb.DetachPortResponse:
        """Take a VM's port away."""
        vm_id = check_vm_id("vm_id", request.vm_id)

        async def do() -> pb.DetachPortResponse:
            return pb.DetachPortResponse(detached=await self._netd.detach(vm_id))

        return await self._once.call(request, pb.DetachPortResponse, do)

    async def GetPort(self, request: pb.GetPortRequest, context: Context) -> pb.GetPortResponse:
        """Return a VM's port."""
        vm_id = check_vm_id("vm_id", request.vm_id)
        return pb.GetPortResponse(port=self._port(await self._netd.get(vm_id)))

    async def ListPorts(
        self, request: pb.ListPortsRequest, context: Context
    ) -> pb.ListPortsResponse:
        """Return a page of ports."""
        size = paging.page_size(request.page_size)
        # One more than asked for tells whether there is a next page.
        leases = await self._netd.page(paging.decode(request.page_token), size + 1)
        token = paging.encode(leases[size - 1].host) if len(leases) > size else ""
        return pb.ListPortsResponse(
            ports=[self._port(lease) for lease in leases[:size]], next_page_token=token
        )

    async def CleanupNetwork(
        self, request: pb.CleanupNetworkRequest, context: Context
    ) -> pb.CleanupNetworkResponse:
        """Remove everything."""

        async def do() -> pb.CleanupNetworkResponse:
            removed = await self._netd.cleanup()
            return pb.CleanupNetworkResponse(
                taps=removed.taps,
                bridge=self._network.bridge if removed.bridge else "",
                tables=removed.tables,
                leases=removed.leases,
            )

        return await self._once.call(request, pb.CleanupNetworkResponse, do)

    def _port(self, lease: Lease) -> pb.Port:
        address = self._subnet.interface(lease.host)
        created = Timestamp()
        created.FromNanoseconds(round(lease.created * 1e9))
        return pb.Port(
            vm_id=lease.vm_id,
            tap=lease.tap,
            mac=mac(address.ip),
            ipv4=str(address),
            gateway=self._network.gateway,
            dns=self._network.dns,
            create_time=created,
        )
