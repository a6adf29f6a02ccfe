"""What somebody else does to the network of a real netd is put right."""

import asyncio
import socket

import pytest
from guests import Stack
from netd_ports import attach, list_ports, looking, until_it_agrees
from netd_process import SECONDS

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.ids import new_vm_id

BRIDGES = {
    "link del nexbr0": "bridge nexbr0 made",
    "link set nexbr0 down": "bridge nexbr0 repaired",
    "addr del 172.16.0.1/32 dev nexbr0": "bridge nexbr0 repaired",
    "addr add 10.0.0.1/24 dev nexbr0": "bridge nexbr0 repaired",
    "link set nexbr0 mtu 1400": "bridge nexbr0 repaired",
    "link set nexbr0 address 02:00:00:00:00:01": "bridge nexbr0 repaired",
    "route del unreachable 172.16.0.0/12 metric 4096": "routes of subnets set",
}


TAPS = {
    "link del {tap}": "made again",
    "link set {tap} nomaster": "repaired",
    "link set {tap} down": "repaired",
    "link set {tap} alias somebody": "repaired",
    "link set {tap} type bridge_slave isolated off": "repaired",
    "route del {ipv4} dev nexbr0": "repaired",
    "neigh del {ipv4} dev nexbr0": "repaired",
}


@pytest.mark.parametrize(("harm", "repair"), [*BRIDGES.items(), *TAPS.items()])
async def test_what_somebody_does_to_the_network_is_put_right_by_itself(
    netd, namespace, harm, repair
):
    here = Stack(namespace)
    ports = [await attach(netd) for _ in range(3)]
    told = netd.stub.WatchNetwork(pb.WatchNetworkRequest())
    await told.initial_metadata()
    ipv4 = ports[1].ipv4.split("/")[0]
    here.ip(harm.format(tap=ports[1].tap, ipv4=ipv4))
    # How soon is `make bench`'s to measure: within a second.
    async with asyncio.timeout(SECONDS):
        happening = await told.read()
    assert happening.what == "repaired"
    assert repair in happening.details
    assert happening.vm_id == (ports[1].vm_id if harm in TAPS else "")
    await until_it_agrees(netd, SECONDS)
    assert await list_ports(netd) == ports
    assert not (await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())).repaired
    told.cancel()


async def test_what_has_our_mark_and_no_port_goes_by_itself(netd, namespace):
    here = Stack(namespace)
    port = await attach(netd)
    here.ip("tuntap add stray mode tap")
    here.ip(f"link set stray alias nexus-vm@{new_vm_id()}")
    here.ip("link set stray up")  # Linux tells of no alias of a link that is down
    here.ip("tuntap add plugged mode tap")
    here.ip("link set plugged master nexbr0")
    here.ip("tuntap add other mode tap")
    async with asyncio.timeout(SECONDS):
        while {"stray", "plugged"} & set(dict(socket.if_nameindex()).values()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert {name for _, name in socket.if_nameindex()} == {"lo", "nexbr0", port.tap, "other"}


async def test_a_repeat_repairs_before_the_guard_does(netd, namespace):
    here = Stack(namespace)
    ports = [await attach(netd) for _ in range(2)]
    here.ip("link del nexbr0")
    assert await attach(netd, ports[0].vm_id) == ports[0]
    fresh = await attach(netd)
    await until_it_agrees(netd, 1)
    assert [port.tap for port in await list_ports(netd)][:2] == [port.tap for port in ports]
    assert fresh.tap


async def test_rules_that_somebody_flushed_come_back(netd):
    await attach(netd)
    async with looking() as kernel:
        before = await kernel.contents()
        assert await kernel.remove_tables()
        async with asyncio.timeout(SECONDS):
            while await kernel.contents() != before:  # noqa: ASYNC110  # a table tells nothing
                await asyncio.sleep(0.02)
