"""Tracked connections and listening sockets, as the kernel port sees them."""

import asyncio
import contextlib
import socket
from ipaddress import ip_address

import pytest
from guests import Stack

from nexus_netd.kernel import Listener
from nexus_netd.linux import conntrack
from nexus_netd.linux.port import Linux
from nexus_netd.model import Protocol

HERE, THERE, SERVER = (ip_address(f"192.0.2.{number}") for number in (1, 2, 7))
HERE6, SERVER6 = ip_address("fd00:9::1"), ip_address("fd00:9::7")


@pytest.fixture
async def linux(namespace):
    linux = await Linux.open()
    yield linux
    await linux.close()


@pytest.fixture
async def tracking(linux, namespace):
    """Track connections; what goes to port 8080 of SERVER is forwarded to port 80 of HERE."""
    here = Stack(namespace)
    for address in (f"{HERE}/24", f"{THERE}/24", f"{SERVER}/24", f"{HERE6}/64", f"{SERVER6}/64"):
        here.ip(f"addr add {address} dev lo" + (" nodad" if ":" in address else ""))
    process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=asyncio.subprocess.PIPE)
    await process.communicate(
        f"""table inet t {{
            chain track {{ type filter hook output priority 0; ct state new accept; }}
            chain nat {{
                type nat hook output priority -100;
                ip daddr {SERVER} tcp dport 8080 dnat ip to {HERE}:80;
            }}
        }}""".encode()
    )
    assert process.returncode == 0


@pytest.fixture
def sockets():
    with contextlib.ExitStack() as stack:
        yield stack


def listening(sockets, address, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listener = sockets.enter_context(socket.socket(family, kind))
    listener.bind((str(address), port))
    if kind == socket.SOCK_STREAM:
        listener.listen()


def connected(sockets, source, target, port, kind=socket.SOCK_STREAM):
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    client = sockets.enter_context(socket.socket(family, kind))
    client.bind((str(source), 0))
    client.connect((str(target), port))
    client.send(b"hello")
    return client


def shown(flows):
    return {(flow.source, flow.destination, flow.protocol, flow.port) for flow in flows}


@pytest.mark.parametrize("quick", [0, 2_000])
async def test_flows_are_found_by_who_opened_them(linux, tracking, sockets, monkeypatch, quick):
    """Whether the kernel looks for them, or lists all."""
    monkeypatch.setattr(conntrack, "_AS_LONG_AS_A_WALK", quick)
    listening(sockets, SERVER, 443)
    listening(sockets, SERVER6, 443)
    connected(sockets, HERE, SERVER, 443)
    connected(sockets, HERE, SERVER, 53, socket.SOCK_DGRAM)
    connected(sockets, THERE, SERVER, 443)
    connected(sockets, HERE6, SERVER6, 443)
    four = {(HERE, SERVER, 6, 443), (HERE, SERVER, 17, 53)}
    six = {(HERE6, SERVER6, 6, 443)}
    assert shown(await linux.flows([HERE])) == four
    assert shown(await linux.flows([HERE6])) == six
    assert shown(await linux.flows([HERE, HERE6])) == four | six
    many = [HERE, HERE6, *(ip_address(f"192.0.2.{number}") for number in range(100, 120))]
    assert shown(await linux.flows(many)) == four | six
    counts = await linux.connections()
    assert (counts[HERE], counts[THERE], counts[HERE6]) == (2, 1, 1)


@pytest.mark.parametrize("quick", [0, 2_000])
async def test_a_forwarded_flow_is_found_by_who_answers_and_told_as_it_was_asked(
    linux, tracking, sockets, monkeypatch, quick
):
    monkeypatch.setattr(conntrack, "_AS_LONG_AS_A_WALK", quick)
    listening(sockets, HERE, 80)
    connected(sockets, THERE, SERVER, 8080)
    assert shown(await linux.flows([HERE])) == {(THERE, SERVER, 6, 8080)}


async def test_flows_are_cut_one_by_one(linux, tracking, sockets):
    listening(sockets, SERVER, 443)
    listening(sockets, SERVER6, 443)
    for _ in range(3):
        connected(sockets, HERE, SERVER, 443)
    connected(sockets, HERE6, SERVER6, 443)
    flows = await linux.flows([HERE, HERE6])
    assert len(flows) == 4
    assert await linux.cut(flows[:1]) == 1
    assert await linux.cut(flows) == 3
    assert await linux.cut(flows) == 0
    assert list(await linux.flows([HERE, HERE6])) == []


async def test_no_more_connections_are_looked_at_than_are_asked_for(
    linux, tracking, sockets, monkeypatch
):
    monkeypatch.setattr(conntrack, "MOST_FLOWS", 50)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(HERE), 0))
        for port in range(1, 301):
            sender.sendto(b"", (str(SERVER), port))
    assert sum((await linux.connections()).values()) == 50
    assert len(await linux.flows([HERE])) == 50


async def test_listeners_are_told_with_protocol_address_and_port(linux, tracking, sockets):
    listening(sockets, HERE, 80)
    listening(sockets, HERE6, 81)
    listening(sockets, HERE, 53, socket.SOCK_DGRAM)
    listening(sockets, ip_address("0.0.0.0"), 82)
    connected(sockets, THERE, HERE, 80)
    connected(sockets, THERE, HERE, 53, socket.SOCK_DGRAM)
    assert await linux.listeners() == {
        Listener(Protocol.TCP, HERE, 80),
        Listener(Protocol.TCP, HERE6, 81),
        Listener(Protocol.UDP, HERE, 53),
        Listener(Protocol.TCP, ip_address("0.0.0.0"), 82),
    }


@pytest.mark.parametrize("only", [False, True])
async def test_a_listener_on_ipv6_may_take_ipv4_too(linux, namespace, sockets, only):
    listener = sockets.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    listener.bind(("::", 83))
    listener.listen()
    both = {
        Listener(Protocol.TCP, ip_address("::"), 83),
        Listener(Protocol.TCP, ip_address("0.0.0.0"), 83),
    }
    found = await linux.listeners()
    assert found == ({Listener(Protocol.TCP, ip_address("::"), 83)} if only else both)
