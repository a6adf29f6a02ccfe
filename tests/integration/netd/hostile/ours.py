"""The scene with netd and its resolver."""

from contextlib import asynccontextmanager

from dns_process import running_with_resolver
from guests import Cables, Stack

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.ids import new_vm_id
from tests.integration.netd.hostile.nameserver import name_server
from tests.integration.netd.hostile.scene import (
    BYTES,
    CONNECTIONS,
    FORBIDDEN,
    HOST_PORT,
    HOST_PORT6,
    LINK_PORT,
    NAME_SERVER,
    RATE,
    ROSTER,
    ROSTER6,
    SUBNET6,
    SUBNETS,
    WAYS_IN,
    Scene,
    build_outside,
)

TCP, UDP = pb.PROTOCOL_TCP, pb.PROTOCOL_UDP
NONE = pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE)


def rules(*all_of_them):
    return pb.EgressPolicy(mode=pb.EGRESS_MODE_RULES, rules=all_of_them)


def allow(**rule):
    return pb.EgressRule(action=pb.ACTION_ALLOW, **rule)


RULED = rules(
    pb.EgressRule(action=pb.ACTION_DENY, cidr=f"{FORBIDDEN}/32"),
    allow(cidr="198.51.100.0/24", protocol=UDP, first_port=4000, last_port=4009),
    allow(cidr="198.51.100.0/24", protocol=TCP, first_port=4000),
    allow(cidr="192.0.2.0/24"),
    allow(cidr="169.254.169.123/32", protocol=UDP, first_port=123),
)
RULED6 = rules(allow(cidr="2001:db8:51::/64", protocol=UDP, first_port=4000))
NAMED = rules(
    allow(domain="good.example", protocol=TCP, first_port=443),
    allow(domain="brief.example", protocol=TCP, first_port=443),
    allow(domain="*.pkg.example", protocol=TCP, first_port=443),
    allow(domain="*.trap.example"),
)
POLICIES = {
    "mute": NONE,
    "mute6": NONE,
    "ruled": RULED,
    "ruled6": RULED6,
    "named": NAMED,
    "namesake": NAMED,
}
LIMITS = {
    "counted": pb.Limits(connections=CONNECTIONS),
    "counted6": pb.Limits(connections=CONNECTIONS),
    "slow": pb.Limits(egress_packets=RATE, ingress_packets=RATE),
    "thin": pb.Limits(egress_bytes=BYTES, ingress_bytes=BYTES),
}


class Netd:
    """Guards; changes are made by its own calls."""

    def __init__(self, stub):
        self._stub = stub

    async def link(self, sender, to, port):
        link = self._between(sender, to, port)
        await self._stub.CreateLink(pb.CreateLinkRequest(link=link))

    async def unlink(self, sender, to, port):
        link = self._between(sender, to, port)
        await self._stub.DeleteLink(pb.DeleteLinkRequest(link=link))

    def heal(self):
        """Nothing is to be healed: that is the point."""

    def _between(self, sender, to, port):
        return pb.Link(
            from_vm_id=sender.port.vm_id, to_vm_id=to.port.vm_id, protocol=TCP, ports=[port]
        )


@asynccontextmanager
async def our_scene(namespace, directory):
    """Build the scene in the namespace that this thread is in."""
    here = Stack(namespace)
    here.ip("link set lo up")
    with Cables() as cables:
        outside = build_outside(cables, here)
        async with (
            name_server(outside),
            running_with_resolver(directory, subnet=SUBNETS[0], dns=[NAME_SERVER]) as process,
        ):
            stub = process.stub
            await _make_networks(stub)
            guests = {
                name: cables.guest(await _attach(stub, name, network))
                for network, names in (("default", ROSTER), ("six", ROSTER6))
                for name in names
            }
            control = Netd(stub)
            await control.link(guests["bob"], guests["carol"], LINK_PORT)
            await _publish(stub, guests["alice"])
            scene = Scene(cables, here, outside, guests, control, dns="")
            yield scene
            scene.close()


async def _make_networks(stub):
    ports = [pb.HostPort(protocol=TCP, port=port) for port in (HOST_PORT, HOST_PORT6)]
    default = pb.Network(name="default", host_ports=ports[:1])
    await stub.UpdateNetwork(pb.UpdateNetworkRequest(network=default))
    six = pb.Network(
        name="six",
        subnet=SUBNETS[1],
        ipv6_subnet=SUBNET6,
        dns=[NAME_SERVER],
        host_ports=ports[1:],
    )
    await stub.CreateNetwork(pb.CreateNetworkRequest(network=six))


async def _attach(stub, name, network):
    request = pb.AttachPortRequest(
        vm_id=new_vm_id(), network=network, policy=POLICIES.get(name), limits=LIMITS.get(name)
    )
    return (await stub.AttachPort(request)).port


async def _publish(stub, guest):
    for port, address in WAYS_IN.items():
        publication = pb.Publication(
            vm_id=guest.port.vm_id,
            host_ip=address,
            host_port=port,
            guest_port=8000,
            protocol=TCP,
        )
        await stub.PublishPort(pb.PublishPortRequest(publication=publication))
