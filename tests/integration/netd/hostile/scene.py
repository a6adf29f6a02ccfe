"""The place of the attacks: a host, its guests, and everything outside."""

import socket
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from guests import Cables, Guest, Stack
from packets import GRE, ICMP, ICMPV6, IGMP, IPIP, SCTP, TCP, UDP
from packets_capture import Ear, heard

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
OUTSIDE6, UPLINK6 = "2001:db8:51::2", "2001:db8:51::1"  # RFC 3849
SUBNETS = ("172.16.0.0/12", "10.66.0.0/16")
"""Of the networks "default" and "six"; the latter has IPv6."""
SUBNET6 = "fd6e:6578:7573::/64"
OUTSIDE_MAC = "02:00:00:00:00:02"
FORBIDDEN = "198.51.100.66"
ELSEWHERE = "203.0.113.9"  # TEST-NET-3
SILENT = "203.0.113.200"
"""An address that never answers."""
NAME_SERVER = "8.8.8.8"
HOST_PORT, HOST_PORT6 = 7100, 7200
"""TCP ports of the host that guests of the first and the second network may reach."""
LINK_PORT = 9000
"""The TCP port that bob may reach at carol."""
WAYS_IN = {8080: "0.0.0.0", 8081: "127.0.0.1"}
"""Ports of the host that lead to alice's port 8000, by TCP."""
CONNECTIONS = 32
"""Connections that `counted` and `counted6` may have."""
RATE = 100
"""Packets a second that `slow` may send, and be sent."""
SECONDS = 5
BYTES = 100_000
"""Bytes a second that `thin` may send, and be sent."""
_ETH_P_ALL = 3
_SO_SNDBUFFORCE = 32

ROSTER = (
    "mallory",
    "alice",
    "bob",
    "carol",
    "mute",
    "ruled",
    "named",
    "namesake",
    "counted",
    "slow",
    "thin",
)
ROSTER6 = ("mallory6", "alice6", "ruled6", "mute6", "counted6")


class Control(Protocol):
    """What is done to the network in an attack's course."""

    async def link(self, sender: Guest, to: Guest, port: int) -> None:
        """Let `sender` open TCP connections to a port of `to`."""

    async def unlink(self, sender: Guest, to: Guest, port: int) -> None:
        """Take that away again."""

    def heal(self) -> None:
        """Undo what an attack did to caches."""


@dataclass
class Scene:
    """Host, guests and outside; `dns` is where guests ask for names."""

    cables: Cables
    here: Stack
    outside: Stack
    guests: dict[str, Guest]
    control: Control
    dns: str
    at_outside: Ear = field(init=False)
    at_host: Ear = field(init=False)
    _sender: Any = field(init=False)
    _sender6: Any = field(init=False)
    _ends: dict[str, str] = field(init=False)
    _ears: list[Ear] = field(init=False)
    _numbers: Any = field(default_factory=count)

    def __post_init__(self) -> None:
        self.at_outside = self.cables.ear(
            self.outside.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        )
        # Raw sockets are given what has passed the input hook.
        self.at_host = self.cables.ear(
            *(
                self.here.socket(socket.AF_INET, socket.SOCK_RAW, number)
                for number in (ICMP, IGMP, TCP, UDP, IPIP, GRE, SCTP)
            ),
            *(self.here.socket(socket.AF_INET6, socket.SOCK_RAW, n) for n in (ICMPV6, TCP, UDP)),
            *(self._reserved(kind) for kind in (0x88CC, 0x888E)),
        )
        self._sender = self.here.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.bind(("0.0.0.0", 6000))
        self._sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 23)
        self._sender6 = self.here.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        # These two hear little, by their limits.
        heard = self.guests.keys() - {"slow", "thin"}
        self._ends = {name: self.guests[name].address for name in heard}
        self._ends["outside"] = OUTSIDE
        self._ears = [self.at_outside, *(guest.ear for guest in self.guests.values())]

    def _reserved(self, kind):
        """Return a socket that is given what the bridge hands up of LLDP or EAPOL."""
        return self.here.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))

    def close(self) -> None:
        self._sender.close()
        self._sender6.close()

    def others(self, guest: Guest) -> list[Guest]:
        return [other for other in self.guests.values() if other is not guest]

    def tracked(self) -> int:
        """Return how many connections the host tracks."""
        return int(self.here.get("netfilter/nf_conntrack_count"))

    def neighbours(self) -> int:
        """Return how many addresses on its links the host knows of or looks for."""
        return len(self.here.ask("-json neigh show"))

    def mark(self) -> bytes:
        """Return bytes that no other packet has."""
        return b"nexus-%06d" % next(self._numbers)

    def tell(self, address: str, words: bytes, port: int = 9) -> None:
        """Send a datagram as the host does."""
        sender = self._sender6 if ":" in address else self._sender
        sender.sendto(words, (address, port))

    async def fence(self) -> None:
        """Return when everything sent before has arrived where it goes, if it goes anywhere.

        A frame is forwarded in the call that writes it, and no queue of ours reorders: what comes
        after it has overtaken nothing. Where an attack has diverted a guest's frames, they count as
        arrived wherever they do.
        """
        for ear in self._ears:
            ear.drain()  # a TAP whose queue is full loses frames
        marks = {}
        for name, address in self._ends.items():
            marks[name] = self.mark()
            self.tell(address, marks[name])

        def arrived():
            for name in [name for name, mark in marks.items() if self._is_heard(mark)]:
                del marks[name]
            return not marks

        assert await heard(self.cables.woken, SECONDS, arrived), f"lost on the way: {list(marks)}"
        self.at_host.drain()

    def _is_heard(self, mark):
        return any(ear.with_(mark) for ear in self._ears)

    async def begin(self) -> None:
        """Check that all are there, and let the host learn where."""
        for name, guest in self.guests.items():
            assert await self.here.ping(guest.address, SECONDS), f"{name} is not there"

    async def clear(self) -> None:
        """Begin anew: caches healed, nothing heard."""
        self.control.heal()
        await self.fence()
        for ear in (*self._ears, self.at_host):
            ear.forget()


def build_outside(cables: Cables, here: Stack) -> Stack:
    """Return a host that is every address of the internet, on this host's default route."""
    for links in ("all", "default"):
        here.set(f"ipv6/conf/{links}/accept_dad", 0)  # addresses are there at once
    for name in ("ipv4/icmp_ratelimit", "ipv4/icmp_ratemask", "ipv6/icmp/ratelimit"):
        here.set(name, 0)  # else Linux tells each guest of 6 refusals at once, and one a second
    outside = cables.host(f"{UPLINK}/24", f"{OUTSIDE}/24")
    outside.ip(f"link set eth0 address {OUTSIDE_MAC}")
    for subnet in SUBNETS:  # it would go to guests, if it were let
        outside.ip(f"route add {subnet} via {UPLINK}")
    name = f"out{outside.descriptor}"
    here.ip(f"addr add {UPLINK6}/64 dev {name} nodad")
    outside.ip(f"addr add {OUTSIDE6}/64 dev eth0 nodad")
    for family, address, everything in (("-4", OUTSIDE, "0.0.0.0/0"), ("-6", OUTSIDE6, "::/0")):
        here.ip(f"{family} neigh replace {address} lladdr {OUTSIDE_MAC} dev {name}")
        here.ip(f"{family} route add default via {address} dev {name}")
        outside.ip(f"{family} route add local {everything} dev lo table main")
    outside.ip(f"route add blackhole {SILENT}")
    here.ip(f"neigh replace {FORBIDDEN} lladdr {OUTSIDE_MAC} dev {name}")
    return outside
