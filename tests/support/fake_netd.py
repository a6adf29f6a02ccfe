"""netd as nexusctl meets it, in memory: for tests of nexusctl as a process."""

import asyncio

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import netd_pb2_grpc
from nexus_rpc.errors import AlreadyExists, FailedPrecondition, NotFound


class Wires:
    """What netd holds."""

    def __init__(self):
        self.ports = {}
        self.networks = {"default": pb.Network(name="default", bridge="nexbr0", mtu=1500)}
        self.networks["default"].subnet = "172.16.0.0/12"
        self.links = []
        self.publications = []
        self.denials = []
        self.events = []
        self.flow = pb.ExplainFlowResponse(allowed=True, rule="open", explanation="all is")

    def attach(self, vm_id, number, name="", network="default"):
        """Put a port there."""
        first = self.networks[network].subnet.rpartition(".")[0]
        self.ports[vm_id] = pb.Port(
            vm_id=vm_id,
            vm_name=name,
            tap=f"tap{number}",
            mac=f"02:fc:00:00:00:{number:02x}",
            ipv4=f"{first}.{number}/12",
            gateway=f"{first}.1",
            dns=[f"{first}.1"],
            network=network,
            mtu=1500,
            policy=pb.EgressPolicy(mode=pb.EGRESS_MODE_OPEN),
        )
        return self.ports[vm_id]

    def port(self, vm_id):
        if vm_id not in self.ports:
            raise NotFound("PORT_NOT_FOUND", f"{vm_id} has no port")
        return self.ports[vm_id]

    def network(self, name):
        name = name or "default"
        if name not in self.networks:
            raise NotFound("NETWORK_NOT_FOUND", f"there is no network {name!r}", network=name)
        return self.networks[name]

    def migrate(self, name, subnet):
        """Move a network as MigrateNetwork does: TAPs and MACs stay."""
        self.network(name).subnet = subnet
        first = subnet.rpartition(".")[0]
        for port in self.ports.values():
            if port.network == name:
                port.ipv4 = f"{first}.{port.ipv4.rpartition('.')[2]}"
                port.gateway = f"{first}.1"
                port.dns[:] = [port.gateway]


class FakeNetd(netd_pb2_grpc.NetworkServiceServicer):
    """The calls. Each is one method of netd.proto; what it checks, nexusctl's tests rely on."""

    def __init__(self, fakes):
        self.fakes = fakes
        self.wires = fakes.wires

    async def CreateNetwork(self, request, context):
        await self.fakes.begin(request, context)
        if request.network.name in self.wires.networks:
            raise AlreadyExists("NETWORK_EXISTS", f"{request.network.name} is there already")
        made = self.wires.networks[request.network.name] = request.network
        made.bridge = made.bridge or "nexbr1"
        return pb.CreateNetworkResponse(network=made)

    async def UpdateNetwork(self, request, context):
        await self.fakes.begin(request, context)
        network = self.wires.network(request.network.name)
        for field in request.clear:
            network.ClearField(field)
        network.MergeFrom(request.network)
        return pb.UpdateNetworkResponse(network=network)

    async def DeleteNetwork(self, request, context):
        await self.fakes.begin(request, context)
        if any(port.network == request.name for port in self.wires.ports.values()):
            raise FailedPrecondition("NETWORK_IN_USE", "ports are attached", network=request.name)
        gone = self.wires.networks.pop(request.name, None)
        return pb.DeleteNetworkResponse(deleted=gone is not None)

    async def GetNetwork(self, request, context):
        await self.fakes.begin(request, context)
        return pb.GetNetworkResponse(network=self.wires.network(request.name))

    async def ListNetworks(self, request, context):
        await self.fakes.begin(request, context)
        return pb.ListNetworksResponse(networks=self.wires.networks.values())

    async def MigrateNetwork(self, request, context):
        method = await self.fakes.begin(request, context)
        self.wires.migrate(request.name, request.subnet)
        await self.fakes.end(method, context)
        return pb.MigrateNetworkResponse(network=self.wires.network(request.name))

    async def AttachPort(self, request, context):
        method = await self.fakes.begin(request, context)
        name = self.wires.network(request.network).name
        port = self.wires.ports.get(request.vm_id)
        if port is None:
            port = self.wires.attach(request.vm_id, len(self.wires.ports) + 2, network=name)
            if request.HasField("policy"):
                port.policy.CopyFrom(request.policy)
                port.own_policy = True
            port.search[:] = request.search
        elif port.network != name:
            raise AlreadyExists("PORT_DIFFERS", f"it is on {port.network}")
        await self.fakes.end(method, context)
        return pb.AttachPortResponse(port=port)

    async def DetachPort(self, request, context):
        await self.fakes.begin(request, context)
        port = self.wires.ports.pop(request.vm_id, None)
        return pb.DetachPortResponse(detached=port is not None)

    async def GetPort(self, request, context):
        await self.fakes.begin(request, context)
        port = pb.Port()
        port.CopyFrom(self.wires.port(request.vm_id))
        port.counters.denied_packets = 3
        return pb.GetPortResponse(port=port)

    async def ListPorts(self, request, context):
        await self.fakes.begin(request, context)
        ports = self.wires.ports.values()
        named = [port for port in ports if request.network in ("", port.network)]
        return pb.ListPortsResponse(**self._page("ports", named, request))

    async def SetPolicy(self, request, context):
        await self.fakes.begin(request, context)
        port = self.wires.port(request.vm_id)
        port.own_policy = bool(request.policy.mode)
        port.policy.CopyFrom(request.policy)
        if not port.own_policy:
            port.policy.mode = pb.EGRESS_MODE_OPEN
        return pb.SetPolicyResponse(port=port, cut=2)

    async def SetLimits(self, request, context):
        await self.fakes.begin(request, context)
        port = self.wires.port(request.vm_id)
        port.limits.CopyFrom(request.limits)
        return pb.SetLimitsResponse(port=port)

    async def CreateLink(self, request, context):
        await self.fakes.begin(request, context)
        if request.link not in self.wires.links:
            self.wires.links.append(request.link)
        return pb.CreateLinkResponse(link=request.link)

    async def DeleteLink(self, request, context):
        await self.fakes.begin(request, context)
        there = request.link in self.wires.links
        if there:
            self.wires.links.remove(request.link)
        return pb.DeleteLinkResponse(deleted=there)

    async def ListLinks(self, request, context):
        await self.fakes.begin(request, context)
        links = [
            link
            for link in self.wires.links
            if request.vm_id in ("", link.from_vm_id, link.to_vm_id)
        ]
        return pb.ListLinksResponse(**self._page("links", links, request))

    async def PublishPort(self, request, context):
        method = await self.fakes.begin(request, context)
        publication = request.publication
        publication.host_ip = publication.host_ip or "127.0.0.1"
        self.wires.port(publication.vm_id)
        self.wires.publications.append(publication)
        await self.fakes.end(method, context)
        return pb.PublishPortResponse(publication=publication)

    async def UnpublishPort(self, request, context):
        await self.fakes.begin(request, context)
        host = (request.host_ip or "127.0.0.1", request.host_port, request.protocol)
        kept = [p for p in self.wires.publications if (p.host_ip, p.host_port, p.protocol) != host]
        gone = len(kept) < len(self.wires.publications)
        self.wires.publications = kept
        return pb.UnpublishPortResponse(unpublished=gone)

    async def ListPublications(self, request, context):
        await self.fakes.begin(request, context)
        found = [p for p in self.wires.publications if request.vm_id in ("", p.vm_id)]
        return pb.ListPublicationsResponse(**self._page("publications", found, request))

    async def ExplainFlow(self, request, context):
        await self.fakes.begin(request, context)
        return self.wires.flow

    async def WatchDenials(self, request, context):
        method = await self.fakes.begin(request, context)
        for denial in self.wires.denials[-request.last :] if request.last else ():
            yield pb.WatchDenialsResponse(denial=denial)
        await self.fakes.end(method, context)
        if request.follow:
            yield pb.WatchDenialsResponse(missed=7)
            await asyncio.Event().wait()

    async def WatchNetwork(self, request, context):
        await self.fakes.begin(request, context)
        for event in self.wires.events:
            yield event

    async def CleanupNetwork(self, request, context):
        await self.fakes.begin(request, context)
        if self.wires.ports and not request.force:
            raise FailedPrecondition("VMS_RUNNING", "VMs are running: hello")
        taps = [port.tap for port in self.wires.ports.values()]
        self.wires.ports.clear()
        tables = ["inet nexus", "bridge nexus"] if taps else []
        return pb.CleanupNetworkResponse(taps=taps, tables=tables, leases=len(taps))

    def _page(self, field, entries, request):
        start = int(request.page_token or 0)
        end = start + min(request.page_size, self.fakes.page)
        token = str(end) if end < len(entries) else ""
        return {field: entries[start:end], "next_page_token": token}
