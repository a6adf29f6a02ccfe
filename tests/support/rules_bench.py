"""The rules in a network namespace: a bridge as netd makes it, guests on it, and a host outside.

A guest is a namespace at the end of a veth called as netd's TAPs are; its frames are made by hand.
"""

import os
import select
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

from guests import Stack
from netns import entered, fresh
from packets import echo, ether, kind_of

from nexus_netd.linux import nflog, nft
from nexus_netd.linux.netlink import Netlink
from nexus_netd.model import Guest, HostPort, Limits, Mode, NetworkSpec, Policy, Protocol
from nexus_netd.rules import elements, policy
from nexus_netd.rules.ruleset import Change, Contents
from nexus_netd.subnet import Subnet, mac

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
OUTSIDE6, UPLINK6 = "2001:db8::2", "2001:db8::1"  # RFC 3849
METADATA = "169.254.169.254"
SECONDS = 5
_ALL = 0x0003  # ETH_P_ALL

SPEC = NetworkSpec(
    "default",
    "nexbr0",
    Subnet.parse("172.16.0.0/12"),
    ip_network("fd6e::/64"),
    host_ports=(HostPort(Protocol.TCP, 8080),),
)
GATEWAY, GATEWAY6, GATEWAY_MAC = str(SPEC.gateway), str(SPEC.ipv6_gateway), mac(SPEC.gateway)


def guest(number, egress=None, version6=True, limits=None):
    """Return a port of the network: number 0 has 172.16.0.2 and fd6e::2."""
    address = SPEC.subnet.interface(number + 2).ip
    rules = egress or Policy()
    return Guest(
        f"vm{number}",
        f"nexus{number}",
        SPEC.bridge,
        mac(address),
        1500,
        address,
        SPEC.gateway,
        SPEC.ipv6[number + 2] if version6 else None,
        SPEC.ipv6_gateway if version6 else None,
        rules,
        {Mode.OPEN: policy.OPEN, Mode.NONE: policy.NONE, Mode.RULES: 3 + number}[rules.mode],
        limits or Limits(),
    )


class Wire:
    """A raw socket at one link: what is sent and heard there, frame by frame."""

    def __init__(self, name):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.bind((name, 0))
        self._socket.setblocking(False)

    def close(self):
        self._socket.close()

    def send(self, *frames):
        for frame in frames:
            self._socket.send(frame)

    def heard(self):
        """Return the frames that have come by now."""
        frames = []
        while True:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(70_000)
            except BlockingIOError:
                return frames
            if kind != socket.PACKET_OUTGOING:
                frames.append(frame)

    def until(self, match, seconds=SECONDS):
        """Return the first frame that matches, None where there was none in that time."""
        end = time.monotonic() + seconds
        while True:
            for frame in self.heard():
                if match(frame):
                    return frame
            left = end - time.monotonic()
            if left <= 0:
                return None
            select.select([self._socket], [], [], left)


class Log:
    """What the rules tell of refused packets."""

    def __init__(self, bound):
        self._socket = bound
        self._socket.setblocking(False)

    def told(self, seconds=0.4):
        """Return what is told in that time; the kernel gathers for a tenth of a second."""
        found, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                found += nflog.refusals(self._socket.recv(1 << 17))
        return found


class Plugged(Stack):
    """A guest on the bridge."""

    def __init__(self, descriptor, port, wire):
        super().__init__(descriptor)
        self.port, self.wire, self.mac = port, wire, port.mac
        self.address, self.address6 = str(port.ipv4), str(port.ipv6)

    def up(self, *packets, to=GATEWAY_MAC, source=None):
        """Send IP packets to the gateway."""
        self.wire.send(
            *(ether(to, source or self.mac, kind_of(packet), packet) for packet in packets)
        )

    def fence(self):
        """Wait until all that was sent has been dealt with; return what was heard meanwhile."""
        mark, heard = os.urandom(8), []

        def ours(frame):
            heard.append(frame)
            return mark in frame

        self.up(echo(self.address, GATEWAY, mark))
        assert self.wire.until(ours), "the gateway does not answer"
        return heard[:-1]


class Bench:
    """The host: its rules, and what is plugged into it."""

    def __init__(self, stack, here):
        self._stack, self.here = stack, Stack(here)
        self.link = Netlink(nft.PROTOCOL)
        stack.callback(self.link.close)
        self.guests = []

    def rules(self, *ports, more=()):
        """Write the rules for these guests."""
        nft.replace(self.link, contents(*ports, more=more))

    def change(self, **changes):
        nft.change(self.link, Change(**changes))

    def plug(self, port, silent=True):
        """Plug a guest in, and give its stack the port's addresses.

        `silent`: its stack says nothing by IPv6 of its own accord.
        """
        stack = self.namespace()
        far = f"/proc/{os.getpid()}/fd/{stack.descriptor}"
        self.here.ip(f"link add {port.tap} type veth peer name eth0 netns {far}")
        self.here.ip(f"link set {port.tap} master nexbr0 up")
        self.here.ip(
            f"link set {port.tap} type bridge_slave isolated on learning off flood off "
            "mcast_flood off bcast_flood off"
        )
        subprocess.run(
            ["bridge", "fdb", "replace", port.mac, "dev", port.tap, "master", "static"], check=True
        )
        for address in port.addresses:
            length = address.max_prefixlen
            self.here.ip(f"route add {address}/{length} dev nexbr0")
            self.here.ip(f"neigh replace {address} lladdr {port.mac} dev nexbr0")
        if silent or port.ipv6 is None:
            stack.set("ipv6/conf/eth0/disable_ipv6", 1)
        stack.ip(f"link set eth0 address {port.mac} up")
        stack.ip(f"addr add {port.ipv4}/12 dev eth0")
        stack.ip(f"route add default via {GATEWAY}")
        if port.ipv6 is not None and not silent:
            stack.ip(f"addr add {port.ipv6}/128 dev eth0 nodad")
            stack.ip(f"route add {GATEWAY6} dev eth0")
            stack.ip(f"route add default via {GATEWAY6} dev eth0")
        with entered(stack.descriptor):
            wire = self.wire("eth0")
        self.guests.append(Plugged(stack.descriptor, port, wire))
        return self.guests[-1]

    def outside(self):
        """Plug in a host that has no route to the guests."""
        stack = self.namespace()
        far = f"/proc/{os.getpid()}/fd/{stack.descriptor}"
        self.here.ip(f"link add uplink type veth peer name eth0 netns {far}")
        self.here.ip(f"addr add {UPLINK}/24 dev uplink")
        self.here.ip(f"addr add {UPLINK6}/64 dev uplink nodad")
        self.here.ip("link set uplink up")
        stack.ip("link set eth0 up")
        stack.ip(f"addr add {OUTSIDE}/24 dev eth0")
        stack.ip(f"addr add {OUTSIDE6}/64 dev eth0 nodad")
        with entered(stack.descriptor):
            stack.wire = self.wire("eth0")
        self.here.ip("route add default via 198.51.100.2")
        self.here.ip("route add default via 2001:db8::2")
        return stack

    def wire(self, name):
        """Return a raw socket at a link of the namespace that this is called in."""
        wire = Wire(name)
        self._stack.callback(wire.close)
        return wire

    def log(self):
        """Listen to what is told of refused packets."""
        bound = nflog.bind()
        self._stack.callback(bound.close)
        return Log(bound)

    def namespace(self):
        with fresh() as descriptor:
            kept = os.dup(descriptor)
        self._stack.callback(os.close, kept)
        stack = Stack(kept)
        stack.ip("link set lo up")
        return stack

    def mac_of(self, name):
        """Return a link's MAC."""
        return subprocess.check_output(["ip", "-br", "link", "show", name], text=True).split()[2]

    def denied(self, port):
        """Return how many packets the guest was refused, whatever the version."""
        counts = nft.denied(self.link)
        return sum(counts[address] for address in port.addresses)


def contents(*ports, more=()):
    """Return what the tables hold for these guests."""
    chains = [
        policy.chain(port.policy_number, port.policy)
        for port in ports
        if port.policy.mode is Mode.RULES
    ]
    found = [*elements.of_network(SPEC, [SPEC.bridge]), *more]
    for port in ports:
        found += elements.of_guest(port)
    return Contents(frozenset(found), frozenset(chains))


@contextmanager
def bench(descriptor, filtered=False):
    """Be in the namespace with a bridge as netd makes it.

    `filtered`: with br_netfilter, which shows bridged frames to the rules for IP.
    """
    with ExitStack() as stack:
        made = Bench(stack, descriptor)
        here = made.here
        here.set("ipv4/ip_forward", 1)
        here.set("ipv6/conf/all/forwarding", 1)
        here.set("ipv6/conf/default/accept_dad", 0)
        for family in ("ip", "ip6"):
            here.set(f"bridge/bridge-nf-call-{family}tables", int(filtered))
        # Else the kernel would hand LLDP's frames, and what guests hide in them, past all hooks.
        here.ip(
            f"link add nexbr0 address {GATEWAY_MAC} type bridge mcast_snooping 0 "
            "group_fwd_mask 0x4000"
        )
        here.ip("link set nexbr0 up")
        here.ip(f"addr add {GATEWAY}/32 dev nexbr0")
        here.ip(f"addr add {GATEWAY6}/128 dev nexbr0 nodad")
        for name, value in {
            "proxy_arp": 1,
            "proxy_arp_pvlan": 1,
            "route_localnet": 1,
            "accept_redirects": 0,
        }.items():
            here.set(f"ipv4/conf/nexbr0/{name}", value)
        yield made
