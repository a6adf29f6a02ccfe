"""The same scene with two plain bridges, forwarding and NAT, and nobody to guard them."""

import socket
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from guests import Cables, Stack
from netns import entered
from packets import (
    ALL_NODES,
    ARP,
    BROADCAST,
    IPV6,
    OVERRIDE,
    REPLY,
    arp,
    ether,
    group_mac,
    neighbour,
    packed,
)

from tests.integration.netd.hostile.scene import (
    NAME_SERVER,
    ROSTER,
    ROSTER6,
    WAYS_IN,
    Scene,
    build_outside,
)


@dataclass(frozen=True)
class Bridge:
    """A bridge with its gateways; guests are counted from the gateway on."""

    name: str
    ipv4: str
    length: int
    ipv6: str = ""

    def guest(self, number):
        """Return the addresses of the guest of that number."""
        stem, last = self.ipv4.rsplit(".", 1)
        ipv6 = f"{self.ipv6[:-1]}{int(last) + number:x}" if self.ipv6 else ""
        return f"{stem}.{int(last) + number}", ipv6


@dataclass(frozen=True)
class Plug:
    """What a guest knows of its place, with the fields of netd's port."""

    tap: str
    mac: str
    ipv4: str
    gateway: str
    ipv6: str
    ipv6_gateway: str


BRIDGES = {
    Bridge("nexbr0", "172.16.0.1", 12): ROSTER,
    Bridge("nexbr1", "10.66.0.1", 16, "fd6e:6578:7573::1"): ROSTER6,
}


class Nobody:
    """Guards nothing; `doors` are sockets that send frames out of the bridges."""

    def __init__(self, doors, guests):
        self._doors, self._guests = doors, guests

    async def link(self, sender, to, port):
        pass

    async def unlink(self, sender, to, port):
        pass

    def heal(self):
        """Let everybody say again who they are."""
        for guest in self._guests.values():
            guest.throw(*introductions(guest.mac, guest.address, guest.ipv6))
        for bridge, door in self._doors.items():
            for frame in introductions(mac_of(bridge.ipv4), bridge.ipv4, bridge.ipv6):
                door.send(frame)


def introductions(mac, ipv4, ipv6):
    """Return the frames that say to everybody that these addresses are at this MAC."""
    yield ether(BROADCAST, mac, ARP, arp(REPLY, mac, ipv4, mac, ipv4))
    if ipv6:
        packet = neighbour(ipv6, ALL_NODES, 136, ipv6, mac, OVERRIDE)
        yield ether(group_mac(ALL_NODES), mac, IPV6, packet)


def mac_of(address):
    return "02:fc:" + packed(address).hex(":")


@contextmanager
def bare_scene(namespace):
    """Build the scene in the namespace that this thread is in."""
    here = Stack(namespace)
    here.ip("link set lo up")
    with Cables() as cables, ExitStack() as stack:
        here.set("ipv4/ip_forward", 1)
        with suppress(FileNotFoundError):  # where bridges are never shown to other hooks
            here.set("bridge/bridge-nf-call-iptables", 0)
            here.set("bridge/bridge-nf-call-ip6tables", 0)
        here.set("ipv6/conf/all/forwarding", 1)
        outside = build_outside(cables, here)
        guests, doors = {}, {}
        for bridge, names in BRIDGES.items():
            doors[bridge] = stack.enter_context(_build(here, bridge))
            for number, name in enumerate(names, 1):
                guests[name] = cables.guest(_plug(bridge, number))
                here.ip(f"link set {guests[name].port.tap} master {bridge.name} up")
        _add_nat(here, guests["alice"].address)
        scene = Scene(cables, here, outside, guests, Nobody(doors, guests), NAME_SERVER)
        yield scene
        scene.close()


def _build(here, bridge):
    """Make a bridge; return a socket that sends out of it."""
    here.ip(f"link add {bridge.name} address {mac_of(bridge.ipv4)} type bridge")
    here.set(f"ipv4/conf/{bridge.name}/route_localnet", 1)
    for place in ("all", bridge.name):
        here.set(f"ipv4/conf/{place}/accept_source_route", 1)
    here.set(f"ipv4/neigh/{bridge.name}/locktime", 0)
    here.ip(f"addr add {bridge.ipv4}/{bridge.length} dev {bridge.name}")
    if bridge.ipv6:
        here.ip(f"addr add {bridge.ipv6}/64 dev {bridge.name} nodad")
    here.ip(f"link set {bridge.name} up")
    door = here.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    door.bind((bridge.name, 0))
    return door


def _plug(bridge, number):
    ipv4, ipv6 = bridge.guest(number)
    return Plug(
        tap=f"{bridge.name}p{number}",
        mac=mac_of(ipv4),
        ipv4=f"{ipv4}/{bridge.length}",
        gateway=bridge.ipv4,
        ipv6=f"{ipv6}/128" if ipv6 else "",
        ipv6_gateway=bridge.ipv6,
    )


def _add_nat(here, target):
    ports = " ".join(
        f"tcp dport {port} {f'ip daddr {host} ' if host != '0.0.0.0' else 'fib daddr type local '}"
        f"dnat ip to {target}:8000;"
        for port, host in WAYS_IN.items()
    )
    rules = f"""
table inet plain {{
  chain in {{ type nat hook prerouting priority dstnat; {ports} }}
  chain own {{ type nat hook output priority -100; {ports} }}
  chain out {{
    type nat hook postrouting priority srcnat;
    ip saddr 127.0.0.0/8 oifname "nexbr*" masquerade
    iifname "nexbr*" oifname "out*" masquerade
  }}
}}
"""
    with entered(here.descriptor):
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
