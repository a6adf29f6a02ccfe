"""Packets through a port, as its guest sends them: frames written to the TAP and read from it.

A write to a TAP carries the frame through bridge, rules and routing before it returns (tun_get_user
calls netif_receive_skb), so frames a second are what the path costs, with no other stack between.
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import packets
from netns import entered

_TUNSETIFF, _TAP_NO_PI = 0x400454CA, 0x1002  # linux/if_tun.h
ECHO, SINK = 7007, 7008
_SECONDS = 5
_PORT = 40_000
_WARM = 20
_HEADERS = 14 + 20 + 8


def open_tap(name):
    """Return the descriptor of a TAP's other end; the TAP is made if it is not there."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP_NO_PI))
    return descriptor


def frame_to(wire, destination, port, length):
    """Return a frame of `length` bytes from the guest, by way of its gateway."""
    data = packets.udp(wire.address, destination, _PORT, port, bytes(length - _HEADERS))
    return packets.ether(wire.gateway_mac, wire.mac, packets.IPV4, data)


class Wire:
    """A guest's end of its port, without a stack."""

    def __init__(self, descriptor, *, address, mac, gateway, gateway_mac):
        self.descriptor = descriptor
        self.address = address
        self.mac = mac
        self.gateway = gateway
        self.gateway_mac = gateway_mac

    def receive(self, is_wanted):
        """Return the next frame that is wanted; ARP for the guest is answered meanwhile."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            if not select.select([self.descriptor], [], [], _SECONDS)[0]:
                break
            frame = os.read(self.descriptor, 65_536)
            if is_wanted(frame):
                return frame
            if frame[12:14] == b"\x08\x06" and frame[38:42] == packets.packed(self.address):
                self._answer_arp(frame[22:28].hex(":"), socket.inet_ntoa(frame[28:32]))
        raise TimeoutError("no answer came back to the guest")

    def _answer_arp(self, mac, address):
        answer = packets.arp(packets.REPLY, self.mac, self.address, mac, address)
        os.write(self.descriptor, packets.ether(mac, self.mac, packets.ARP, answer))


def ping_pong(wire, destination, rounds):
    """Return the seconds that each datagram took to an echoing host and back."""
    frame = frame_to(wire, destination, ECHO, 106)
    back = struct.pack("!HH", ECHO, _PORT)

    def is_echo(frame):
        return frame[12:14] == b"\x08\x00" and frame[34:38] == back

    taken = []
    for number in range(rounds + _WARM):
        began = time.perf_counter()
        os.write(wire.descriptor, frame)
        wire.receive(is_echo)
        if number >= _WARM:
            taken.append(time.perf_counter() - began)
    return taken


def frames_a_second(wire, destination, length, seconds):
    """Return how many frames of one open flow a second go from the guest to the outside."""
    frame = frame_to(wire, destination, SINK, length)
    write, descriptor = os.write, wire.descriptor
    began = time.perf_counter()
    end, count = began + seconds, 0
    while time.perf_counter() < end:
        for _ in range(200):
            write(descriptor, frame)
        count += 200
    return count / (time.perf_counter() - began)


@contextmanager
def outside(stack, address):
    """Run a host that echoes UDP at one port and takes in what comes at another."""
    with entered(stack.descriptor):
        process = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def alone_on_a_cpu():
    """Keep this thread on the first CPU, as hosts outside keep to the last."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _echo(address):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    echo, sink = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with echo, sink:
        echo.bind((address, ECHO))
        sink.bind((address, SINK))  # nobody reads it: what is over is dropped there
        print("ready", flush=True)
        while True:
            data, peer = echo.recvfrom(2_048)
            echo.sendto(data, peer)


if __name__ == "__main__":
    _echo(sys.argv[1])
