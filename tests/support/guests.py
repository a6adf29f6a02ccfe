"""Network stacks that stand for guests and outside hosts: each a namespace of its own.

A guest's namespace has one TAP, `eth0`; its frames go to and from the port's TAP as a VMM's would.
"""

import asyncio
import fcntl
import os
import socket
import struct
import subprocess
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from netns import entered, fresh

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
            await loop.sock_sendall(icmp, echo_request())
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


def echo_request():
    """Return an ICMP echo request with its checksum (RFC 792)."""
    body = struct.pack("!BBHHH", 8, 0, 0, 0x6E78, 1)
    return body[:2] + struct.pack("!H", 0xFFFF & ~sum(struct.unpack("!4H", body))) + body[4:]


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


class Guest(Stack):
    """A guest on a port of netd's."""

    def __init__(self, descriptor, port, wire):
        super().__init__(descriptor)
        self.port = port
        self.mac = port.mac
        self.address = port.ipv4.split("/")[0]
        self.heard = []
        self.wire = wire

    def send(self, destination, kind, payload, source=None):
        """Put a frame of our own making on the wire."""
        frame = mac_bytes(destination) + mac_bytes(source or self.mac) + struct.pack("!H", kind)
        os.write(self.wire, (frame + payload).ljust(60, b"\0"))

    def heard_from(self, mac):
        """Return the frames that came from `mac`."""
        return [frame for frame in self.heard if frame[6:12] == mac_bytes(mac)]


def _open_tap(name):
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_NO_PI))
    return descriptor


class Cables:
    """Plugs guests and hosts in; everything is unplugged at the end of the block."""

    def __init__(self):
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
        outer = _open_tap(port.tap)
        self._stack.callback(os.close, outer)
        with entered(descriptor):
            inner = _open_tap("eth0")
        self._stack.callback(os.close, inner)
        guest = Guest(descriptor, port, outer)
        guest.ip(f"link set eth0 address {port.mac} up")
        guest.ip(f"addr add {port.ipv4} dev eth0")
        guest.ip(f"route add default via {port.gateway}")
        self._relay(inner, outer, None)
        self._relay(outer, inner, guest.heard)
        return guest

    def host(self, near, far):
        """Connect a host `far` to this namespace, `near`: each an "ADDRESS/LENGTH"."""
        stack = self.namespace()
        name = f"out{stack.descriptor}"
        with Path("/proc/thread-self/ns/net").open("rb") as current:
            here = Stack(current.fileno())
            far_end = f"/proc/{os.getpid()}/fd/{stack.descriptor}"
            here.ip(f"link add {name} type veth peer name eth0 netns {far_end}")
            here.ip(f"addr add {near} dev {name}")
            here.ip(f"link set {name} up")
        stack.ip(f"addr add {far} dev eth0")
        stack.ip("link set eth0 up")
        return stack

    def _relay(self, source, target, heard):
        loop = asyncio.get_running_loop()

        def pump():
            try:
                frame = os.read(source, _LONGEST_FRAME)
                if heard is not None:
                    heard.append(frame)
                os.write(target, frame)
            except OSError:
                pass  # down, full or unplugged: a wire loses frames

        loop.add_reader(source, pump)
        self._stack.callback(loop.remove_reader, source)
