import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from prometheus_client import REGISTRY, generate_latest

from nexus_netd import metrics
from nexus_netd.kernel import Counters, KernelError
from nexus_netd.metrics import Figures
from nexus_netd.model import Guest, Limits, NetworkSpec, Policy, Port
from nexus_netd.subnet import Subnet
from nexus_netd.view import View

SPEC = NetworkSpec("default", "nexbr0", Subnet(IPv4Network("10.9.0.0/16")))


class CountingKernel:
    """Counts what it is told, and how often it is asked."""

    def __init__(self):
        self.by_tap = {}
        self.by_address = {}
        self.asked = 0
        self.fault = None

    async def counters(self):
        self.asked += 1
        if self.fault:
            raise self.fault
        return self.by_tap

    async def denied(self):
        return self.by_address

    async def connections(self):
        return {address: 2 * number for address, number in self.by_address.items()}


def put(view, number, network="default"):
    vm, tap, ipv4 = f"vm{number}", f"nexus{number}", IPv4Address("10.9.0.0") + number + 2
    ipv6 = IPv6Address("fd00::") + number + 2
    guest = Guest(
        vm, tap, "nexbr0", "", 1500, ipv4, SPEC.gateway, ipv6, None, Policy(), 1, Limits()
    )
    view.put_port(Port(number, vm, network, number + 2, "nexbr0", tap, "", 0.0), guest)
    return guest


@pytest.fixture
def kernel():
    return CountingKernel()


@pytest.fixture
def view():
    view = View()
    view.put_network(SPEC)
    return view


@pytest.fixture
async def figures(kernel, view):
    figures = Figures(kernel, view, lambda: 7)
    with figures.served():
        yield figures


async def scrape():
    """Return the lines of a scrape that are about ports."""
    text = await asyncio.to_thread(generate_latest, REGISTRY)
    lines = text.decode().splitlines()
    return {line for line in lines if line.startswith("nexus_netd_port_")}


async def observed(callback):
    found = await asyncio.to_thread(callback, None)
    return {tuple(one.attributes.values()) if one.attributes else (): one.value for one in found}


async def test_each_port_is_counted_both_ways(kernel, view, figures):
    guest = put(view, 0)
    kernel.by_tap["nexus0"] = Counters(100, 3, 2000, 5, 1)
    kernel.by_address |= {guest.ipv4: 4, guest.ipv6: 5}
    labels = 'network="default",vm_id="vm0"'
    both = '{{direction="{}",network="default",vm_id="vm0"}}'
    assert await scrape() == {
        f"nexus_netd_port_bytes_total{both.format('egress')} 100.0",
        f"nexus_netd_port_bytes_total{both.format('ingress')} 2000.0",
        f"nexus_netd_port_packets_total{both.format('egress')} 3.0",
        f"nexus_netd_port_packets_total{both.format('ingress')} 5.0",
        f"nexus_netd_port_dropped_packets_total{{{labels}}} 1.0",
        f"nexus_netd_port_denied_packets_total{{{labels}}} 9.0",
        f"nexus_netd_port_connections{{{labels}}} 18.0",
    }


async def test_a_port_that_nothing_went_through_is_counted(view, figures):
    put(view, 0)
    assert 'nexus_netd_port_connections{network="default",vm_id="vm0"} 0.0' in await scrape()


async def test_the_kernel_is_asked_at_most_every_five_seconds(kernel, view, figures, monkeypatch):
    put(view, 0)
    before = await scrape()
    await asyncio.gather(scrape(), scrape(), observed(figures._ports))
    put(view, 1)
    assert await scrape() == before
    assert kernel.asked == 1
    monkeypatch.setattr(metrics, "FRESH", 0.0)
    assert len(await scrape()) == 2 * len(before)
    assert kernel.asked == 2


async def test_a_kernel_that_does_not_answer_costs_ports_their_figures(
    kernel, view, figures, monkeypatch, caplog
):
    put(view, 0)
    kernel.fault = KernelError(None, "counting: netlink is away")
    monkeypatch.setattr(metrics, "FRESH", 0.0)
    assert await scrape() == await scrape() == set()
    assert await observed(figures._ports) == {("default",): 1}
    assert [record.message for record in caplog.records] == [
        "ports are not counted: counting: netlink is away"
    ]
    kernel.fault = None
    assert await scrape() != set()


async def test_a_kernel_that_hangs_is_not_waited_for(kernel, view, figures, monkeypatch, caplog):
    put(view, 0)
    kernel.connections = asyncio.Event().wait
    monkeypatch.setattr(metrics, "_TIMEOUT", 0.01)
    assert await scrape() == set()
    assert "did not answer in time" in caplog.text


async def test_networks_are_counted_as_a_whole(kernel, view, figures):
    view.put_network(replace(SPEC, name="other", subnet=Subnet(IPv4Network("10.8.0.0/24"))))
    for number in range(3):
        kernel.by_address[put(view, number).ipv4] = number
    assert await observed(figures._ports) == {("default",): 3, ("other",): 0}
    assert await observed(figures._capacity) == {("default",): 65_533, ("other",): 253}
    assert await observed(figures._connections) == {("default",): 6, ("other",): 0}
    assert await observed(figures._live_pins) == {(): 7}


async def test_totals_go_on_when_ports_go_or_taps_are_made_anew(kernel, view, figures, monkeypatch):
    monkeypatch.setattr(metrics, "FRESH", 0.0)
    egress = ("default", "egress")
    put(view, 0)
    put(view, 1)
    kernel.by_tap |= {"nexus0": Counters(100, 1, 0, 0, 0), "nexus1": Counters(10, 1, 0, 0, 0)}
    assert (await observed(figures._bytes))[egress] == 110
    view.remove_port("vm0")
    kernel.by_tap["nexus1"] = Counters(15, 2, 0, 0, 0)
    assert (await observed(figures._bytes))[egress] == 115
    kernel.by_tap["nexus1"] = Counters(6, 1, 0, 0, 0)  # made anew
    assert (await observed(figures._bytes))[egress] == 121
    assert (await observed(figures._packets))[egress] == 4


async def test_afterwards_nobody_is_asked(kernel, view):
    figures = Figures(kernel, view, lambda: 0)
    with figures.served():
        put(view, 0)
        assert await observed(figures._ports) == {("default",): 1}
    put(view, 1)
    assert await observed(figures._ports) == {("default",): 1}
    assert await scrape() == set()
    assert kernel.asked == 1
