"""Refused packets as NFLOG hands them over, from real rules."""

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import time

import pytest
from kernel_values import attach, bridge, guest

from nexus_netd.kernel import KernelError
from nexus_netd.linux import nflog
from nexus_netd.linux.port import Linux

SECONDS = 5


@pytest.fixture
async def linux(namespace):
    linux = await Linux.open()
    yield linux
    await linux.close()


async def nft(rules):
    process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=asyncio.subprocess.PIPE)
    await process.communicate(rules.encode())
    assert process.returncode == 0


@pytest.fixture
async def refusing(linux):
    """Refuse what the host sends to port 9, and all that a bridge's port sends."""
    await nft("""
        table inet t { chain out {
            type filter hook output priority 0;
            meta l4proto { tcp, udp } th dport 9 log prefix "nexus rule 3" group 110 drop
            meta l4proto { icmp, ipv6-icmp } log prefix "nexus no rule" group 110 drop
        }; }
        table bridge t { chain in {
            type filter hook prerouting priority 0;
            log prefix "nexus spoofed" group 110 snaplen 128 drop
        }; }
    """)


@pytest.fixture
async def stream(refusing):
    stream = nflog.listen(nflog.bind())
    yield stream
    stream.close()


async def first(stream, reason=""):
    """Return the first refusal, or the first for a reason."""
    async with asyncio.timeout(SECONDS):
        while True:
            refusal = await anext(stream)
            if reason in ("", refusal.reason):
                return refusal


def send(family, kind, address, port):
    with socket.socket(family, kind) as sender:
        sender.setblocking(False)
        try:
            sender.connect((address, port))
            sender.send(b"refuse this")
        except OSError as error:
            assert error.errno in (errno.EINPROGRESS, errno.EPERM, errno.EAGAIN)  # noqa: PT017


@pytest.mark.parametrize(
    ("family", "kind", "address", "protocol"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", socket.IPPROTO_UDP),
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", socket.IPPROTO_TCP),
        (socket.AF_INET6, socket.SOCK_DGRAM, "::1", socket.IPPROTO_UDP),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1", socket.IPPROTO_TCP),
    ],
)
async def test_a_refused_packet_is_told(stream, family, kind, address, protocol):
    send(family, kind, address, 9)
    refusal = await first(stream)
    assert (refusal.reason, refusal.tap) == ("rule 3", None)
    assert (str(refusal.source), str(refusal.destination)) == (address, address)
    assert (refusal.protocol, refusal.port) == (protocol, 9)


async def test_a_refused_echo_request_has_no_port(stream):
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp,
        pytest.raises(PermissionError),
    ):
        icmp.sendto(b"\x80\0\0\0\0\1\0\1", ("::1", 0))
    refusal = await first(stream)
    assert (refusal.reason, refusal.protocol, refusal.port) == ("no rule", 58, 0)


async def test_a_frame_that_a_guest_sent_names_its_tap(linux, stream):
    await linux.put_bridge(bridge())
    name = await attach(linux, guest())
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes.fromhex("02fc0a090002")
    arp += socket.inet_aton("10.9.0.2") + bytes(6) + socket.inet_aton("10.9.0.1")
    with plugged(name) as wire:
        await until_up(name)
        os.write(wire, b"\xff" * 6 + bytes.fromhex("02fc0a090002") + b"\x08\x06" + arp)
        # Of what the bridge says by itself, some is refused before.
        refusal = await first(stream, "spoofed")
    assert refusal.tap == name
    assert (str(refusal.source), str(refusal.destination)) == ("10.9.0.2", "10.9.0.1")
    assert (refusal.protocol, refusal.port) == (0, 0)


@contextlib.contextmanager
def plugged(tap):
    """The guest's end of a TAP, as a VMM holds it."""
    wire = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(wire, 0x400454CA, struct.pack("16sH22x", tap.encode(), 0x1002))
        yield wire
    finally:
        os.close(wire)


async def until_up(tap):
    """The bridge lets nothing in before the kernel has come to the TAP's carrier."""
    async with asyncio.timeout(SECONDS):
        while True:
            shown = await asyncio.create_subprocess_exec(
                "bridge", "link", "show", "dev", tap, stdout=asyncio.subprocess.PIPE
            )
            if b"forwarding" in (await shown.communicate())[0]:
                return


async def test_two_cannot_listen_in_one_namespace(linux, stream):
    with pytest.raises(KernelError, match="group 110, of one process") as caught:
        await anext(linux.refusals())
    assert caught.value.errno == errno.EPERM


async def test_the_group_is_free_again_when_the_stream_ends(linux):
    for _ in range(3):
        nflog.listen(nflog.bind()).close()


async def test_the_port_tells_until_it_is_closed(linux, refusing):
    told = asyncio.ensure_future(anext(linux.refusals()))
    while not told.done():
        send(socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", 9)
        await asyncio.wait({told}, timeout=0.01)
    assert (await told).port == 9


async def test_a_burst_is_cheap_for_the_loop(stream):
    """What is too much is dropped by the kernel; others have their turn between the pieces."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(50_000):
            with contextlib.suppress(PermissionError):
                sender.sendto(number.to_bytes(4, "big"), ("127.0.0.1", 9))
    longest, before = 0.0, time.thread_time()
    for _ in range(200):
        await asyncio.sleep(0.001)
        now = time.thread_time()  # of the CPU, whoever else uses it
        longest, before = max(longest, now - before), now
    assert (await first(stream)).port == 9
    assert longest < 0.1
