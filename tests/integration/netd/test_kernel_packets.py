"""Bridges, routes and neighbours alone, without rules: who answers whom, and how soon."""

import asyncio
import socket
import time
from dataclasses import dataclass

import pytest
from guests import Stack
from kernel_values import GATEWAY, GATEWAY6, NAME, SUBNETS, attach, bridge, guest

from nexus_netd.linux.port import Linux

SOON = 0.7
SECONDS = 5
SILENCE = 0.3


@dataclass(frozen=True)
class Port:
    """As much of a port as a guest's stack is told."""

    tap: str
    mac: str
    ipv4: str
    gateway: str = str(GATEWAY)
    ipv6: str = ""
    ipv6_gateway: str = str(GATEWAY6)


@pytest.fixture
async def linux(namespace):
    linux = await Linux.open()
    for name in (NAME, f"{NAME}-1"):
        await linux.put_bridge(bridge(name))
    await linux.put_subnets(SUBNETS)
    for version in (4, 6):
        await linux.put_forwarding(version)
    yield linux
    await linux.close()


@pytest.fixture
async def plug(linux, cables):
    """Return a function that attaches and boots a guest with a number, on a bridge."""

    async def plug(number, on=NAME):
        one = guest(number, on=on)
        tap = await attach(linux, one)
        port = Port(tap, one.mac, f"{one.ipv4}/16", ipv6=f"{one.ipv6}/128")
        booted = cables.guest(port)
        async with asyncio.timeout(SECONDS):
            while not await booted.ping(str(GATEWAY), 0.1):
                pass  # the kernel has not come to the TAP's carrier yet
        return booted

    return plug


async def ping6(stack, address, seconds=SECONDS):
    loop = asyncio.get_running_loop()
    with stack.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp:
        icmp.connect((address, 0))
        await loop.sock_sendall(icmp, b"\x80\0\0\0\0\1\0\1")
        try:
            async with asyncio.timeout(seconds):
                while (await loop.sock_recv(icmp, 2048))[0] != 129:
                    pass
        except TimeoutError:
            return False
        return True


async def seconds_for(ping):
    began = time.perf_counter()
    assert await ping
    return time.perf_counter() - began


async def test_a_guest_reaches_its_gateway_over_ipv6_though_the_bridge_has_no_link_local_address(
    linux, plug, namespace
):
    one = await plug(1)
    assert await ping6(one, str(GATEWAY6))
    assert await ping6(Stack(namespace), one.ipv6.split("/")[0])
    assert "fe80" not in str((await linux.bridge(NAME)).addresses)


async def test_the_bridge_answers_arp_for_other_guests_at_once_and_routes(linux, plug):
    one, other, far = await plug(1), await plug(2), await plug(3, f"{NAME}-1")
    for peer in (other, far):
        assert await seconds_for(one.ping(peer.address)) < SOON
        assert await seconds_for(ping6(one, peer.ipv6.split("/")[0])) < SOON
    assert [frame for frame in other.heard if frame[6:12] == bytes.fromhex("02fc0a090002")] == []


async def test_addresses_that_nobody_has_go_nowhere(linux, plug, namespace):
    one = await plug(1)
    assert not await one.ping("10.9.7.7", SILENCE)
    assert not await ping6(one, "fd6e:6578:7573::77", SILENCE)
    here = Stack(namespace)
    with pytest.raises(OSError, match=r"No route|unreachable"):
        await here.ping("10.9.7.7", SILENCE)


async def test_the_host_is_seen_under_the_gateway_s_address(linux, plug, namespace):
    one = await plug(1)
    async with one.telling_peers(one.address, 7003):
        assert await Stack(namespace).talk(one.address, 7003) == str(GATEWAY)


async def test_a_removed_guest_s_address_is_unreachable_at_once(linux, plug, namespace):
    await plug(1)
    (tap,) = await linux.taps()
    await linux.remove_tap(tap)
    with pytest.raises(OSError, match=r"No route|unreachable"):
        await Stack(namespace).ping("10.9.0.2", SILENCE)


async def test_what_went_through_is_counted_from_the_guest_s_side(linux, plug):
    one = await plug(1)
    before = (await linux.counters())[one.port.tap]
    payload = bytes(1000)
    with one.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(10):
            sender.sendto(payload, (str(GATEWAY), 9))
            one.flush()
    after = (await linux.counters())[one.port.tap]
    assert after.sent_packets - before.sent_packets >= 10
    assert after.sent_bytes - before.sent_bytes >= 10 * 1000
