"""Network stacks that stand for guests and outside hosts: each a namespace of its own.

A guest's namespace has one TAP, `eth0`; its frames go to and from the port's TAP as a VMM's would.
"""

import asyncio
import fcntl
import json
import os
import socket
import struct
import subprocess
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from netns import entered, fresh
from packets import echo, ether, kind_of, mac_bytes, packed
from packets_capture import Ear, listening

_TUNSETIFF, _TAP_NO_PI = 0x400454CA, 0x1002
_LONGEST_FRAME = 65_536
SECONDS = 10


class Stack:
    """A network stack in its own namespace."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def ip(self, command):
        """Run an ip(8) command in this stack."""
        with entered(self.descriptor):
            subprocess.run(["ip", *command.split()], check=True)

    def ask(self, command):
        """Return what an ip(8) command of this stack prints as JSON."""
        with entered(self.descriptor):
            done = subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        return json.loads(done.stdout)

    def set(self, name, value):
        """Set a sysctl of this stack: "ipv4/ip_forward"."""
        with entered(self.descriptor):
            Path("/proc/sys/net", name).write_text(f"{value}\n")

    def get(self, name):
        """Return a sysctl of this stack."""
        with entered(self.descriptor):
            return Path("/proc/sys/net", name).read_text()

    def socket(self, *kind):
        """Return a socket of this stack; it stays of it wherever it is used."""
        with entered(self.descriptor):
            new = socket.socket(*kind)
        new.setblocking(False)
        return new

    async def ping(self, address, seconds=SECONDS):
        """Whether `address` answers an echo request."""
        loop = asyncio.get_running_loop()
        with self.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            icmp.connect((address, 0))
            await loop.sock_sendall(icmp, echo("0.0.0.0", address, b"")[20:])
            try:
                async with asyncio.timeout(seconds):
                    while (await loop.sock_recv(icmp, 2048))[20] != 0:
                        pass  # an error, or the request itself where the stack pings itself
            except TimeoutError:
                return False
            return True

    async def talk(self, address, port):
        """Connect by TCP, and return what the other side says first."""
        loop = asyncio.get_running_loop()
        with self.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            async with asyncio.timeout(SECONDS):
                await loop.sock_connect(tcp, (address, port))
                return (await loop.sock_recv(tcp, 1024)).decode()

    @asynccontextmanager
    async def telling_peers(self, address, port):
        """Serve TCP: each client is told the address that it is seen under."""
        listener = self.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        task = asyncio.ensure_future(_tell_peers(listener))
        try:
            yield
        finally:
            task.cancel()
            # Before the descriptor is closed, and its number used again, the loop must let it go.
            await asyncio.wait({task})
            listener.close()


async def _tell_peers(listener):
    loop = asyncio.get_running_loop()
    while True:
        client, peer = await loop.sock_accept(listener)
        with client:
            await loop.sock_sendall(client, peer[0].encode())


class Guest(Stack):
    """A guest on a port of netd's.

    `ear` hears what comes to it; `flush` puts on the wire what its stack has sent by now.
    """

    def __init__(self, descriptor, port, wire, ear):
        super().__init__(descriptor)
        self.port = port
        self.mac = port.mac
        self.address = port.ipv4.split("/")[0]
        self.ipv6 = port.ipv6.split("/")[0]
        self.gateway = port.gateway
        self.wire = wire
        self.ear = ear
        self.flush = None

    @property
    def heard(self):
        return self.ear.frames

    @property
    def gateway_mac(self):
        return "02:fc:" + packed(self.gateway).hex(":")

    def throw(self, *frames):
        """Put frames of our own making on the wire."""
        for frame in frames:
            os.write(self.wire, frame)

    def up(self, packet, source=None, to=None):
        """Return the frame of an IP packet to the gateway, or `to` another MAC."""
        return ether(to or self.gateway_mac, source or self.mac, kind_of(packet), packet)

    def heard_from(self, mac):
        """Return the frames that came from `mac`."""
        self.ear.drain()
        return [frame for frame in self.heard if frame[6:12] == mac_bytes(mac)]


def _pump(carry):
    """Return a function that carries all that is there."""

    def pump():
        with suppress(BlockingIOError):
            while True:
                carry()

    return pump


def open_tap(name):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_NO_PI))
    return descriptor


class Cables:
    """Plugs guests and hosts in; everything is unplugged at the end of the block.

    `woken` is set whenever an ear of these cables has heard something.
    """

    def __init__(self):
        self.woken = asyncio.Event()
        self._stack = ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._stack.close()

    def namespace(self):
        with fresh() as descriptor:
            kept = os.dup(descriptor)
        self._stack.callback(os.close, kept)
        stack = Stack(kept)
        stack.ip("link set lo up")
        return stack

    def guest(self, port):
        """Boot a guest on the port, with the address and gateway that the port names."""
        descriptor = self.namespace().descriptor
        outer = open_tap(port.tap)
        self._stack.callback(os.close, outer)
        with entered(descriptor):
            inner = open_tap("eth0")
        self._stack.callback(os.close, inner)
        ear = Ear(self.woken, self._carry(outer, inner))
        guest = Guest(descriptor, port, outer, ear)
        if not port.ipv6:
            guest.set("ipv6/conf/eth0/disable_ipv6", 1)
        guest.ip(f"link set eth0 address {port.mac} up")
        guest.ip(f"addr add {port.ipv4} dev eth0")
        guest.ip(f"route add default via {port.gateway}")
        if port.ipv6:
            guest.ip(f"addr add {port.ipv6} dev eth0 nodad")
            guest.ip(f"-6 route add {port.ipv6_gateway} dev eth0")
            guest.ip(f"-6 route add default via {port.ipv6_gateway}")
        self._watch(outer, ear.drain)
        guest.flush = _pump(self._carry(inner, outer))
        self._watch(inner, guest.flush)
        return guest

    def host(self, near, far):
        """Connect a host `far` to this namespace, `near`: each an "ADDRESS/LENGTH"."""
        stack, name = self._cable(far)
        here = self._here()
        here.ip(f"addr add {near} dev {name}")
        here.ip(f"link set {name} up")
        return stack

    def member(self, bridge, far):
        """Connect a host `far`, an "ADDRESS/LENGTH", to a bridge of this namespace."""
        stack, name = self._cable(far)
        self._here().ip(f"link set {name} master {bridge} up")
        return stack

    def _here(self):
        kept = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, kept)
        return Stack(kept)

    def _cable(self, far):
        """Return a stack with one link, `eth0`, and the name of its other end here."""
        stack = self.namespace()
        name = f"out{stack.descriptor}"
        far_end = f"/proc/{os.getpid()}/fd/{stack.descriptor}"
        self._here().ip(f"link add {name} type veth peer name eth0 netns {far_end}")
        stack.ip(f"addr add {far} dev eth0")
        stack.ip("link set eth0 up")
        return stack, name

    def ear(self, *sockets):
        """Return an ear at these sockets."""
        return listening(self.woken, sockets, self._stack)

    def _watch(self, wire, react):
        loop = asyncio.get_running_loop()
        loop.add_reader(wire, react)
        self._stack.callback(loop.remove_reader, wire)

    def _carry(self, source, target):
        """Return a function that hands one frame on, and returns it."""
        loop = asyncio.get_running_loop()

        def carry():
            try:
                frame = os.read(source, _LONGEST_FRAME)
            except BlockingIOError:
                raise
            except OSError:  # unplugged: there will be nothing more
                loop.remove_reader(source)
                raise BlockingIOError from None
            with suppress(OSError):  # down or full: a wire loses frames
                os.write(target, frame)
            return frame

        return carry
