"""What is scraped from netd, and what a scrape costs."""

import asyncio
import socket
import time
from collections import defaultdict
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from guests import Stack
from packets import udp
from prometheus_client.parser import text_string_to_metric_families

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd import metrics
from nexus_netd.kernel import Counters
from nexus_netd.model import Guest, Limits, NetworkSpec, Policy, Port
from nexus_netd.subnet import Subnet
from nexus_netd.view import View
from nexus_rpc.ids import new_vm_id
from nexus_rpc.telemetry import prometheus, telemetry

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
PORTS = 4_000
SECONDS = 20


async def scrape(path):
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 OK"), head
    return body


def series(body):
    """Return the samples of a scrape by name, each with its labels but OpenTelemetry's."""
    found = defaultdict(dict)
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if "otel" not in key}
            found[sample.name][frozenset(labels.items())] = sample.value
    return found


def labelled(**labels):
    return frozenset(labels.items())


async def test_what_a_guest_does_is_counted(netd, namespace, cables):
    cables.host(f"{UPLINK}/24", f"{OUTSIDE}/24")
    Stack(namespace).ip(f"route add default via {OUTSIDE}")
    policies = (pb.EGRESS_MODE_OPEN, pb.EGRESS_MODE_NONE)
    free, bound = [
        cables.guest(
            (
                await netd.stub.AttachPort(
                    pb.AttachPortRequest(vm_id=new_vm_id(), policy=pb.EgressPolicy(mode=mode))
                )
            ).port
        )
        for mode in policies
    ]
    assert await free.ping(OUTSIDE)
    bound.throw(*[bound.up(udp(bound.address, OUTSIDE, 9, 53, b"question"))] * 5)
    call = netd.stub.WatchDenials(pb.WatchDenialsRequest(last=1, follow=True))
    async with asyncio.timeout(SECONDS):
        await call.read()
    call.cancel()
    found = series(await scrape(netd.directory / "metrics.sock"))
    for guest, denied, connections in ((free, 0, 1), (bound, 5, 0)):
        port = {"vm_id": guest.port.vm_id, "network": "default"}
        assert found["nexus_netd_port_denied_packets_total"][labelled(**port)] == denied
        assert found["nexus_netd_port_connections"][labelled(**port)] == connections
        assert found["nexus_netd_port_dropped_packets_total"][labelled(**port)] == 0
        for direction in ("egress", "ingress"):
            both = labelled(**port, direction=direction)
            assert found["nexus_netd_port_packets_total"][both] >= 1
            assert found["nexus_netd_port_bytes_total"][both] >= 42
    network = labelled(network="default")
    assert found["nexus_netd_ports"][network] == 2
    assert found["nexus_netd_capacity"][network] == 1_048_573
    assert found["nexus_netd_connections"][network] == 1
    assert found["nexus_netd_pins"][frozenset()] == 0
    assert found["nexus_netd_denials_total"][labelled(rule="policy none")] == 5
    for name in ("bytes", "packets"):
        for direction in ("egress", "ingress"):
            ports = found[f"nexus_netd_port_{name}_total"]
            both = labelled(network="default", direction=direction)
            total = sum(value for labels, value in ports.items() if both <= labels)
            assert found[f"nexus_netd_{name}_total"][both] == total


class ManyPorts:
    """A kernel's port with figures of many ports."""

    def __init__(self, guests):
        self._taps = {guest.tap: Counters(10**12, 10**9, 10**11, 10**8, 7) for guest in guests}
        self._numbers = {guest.ipv4: 3 for guest in guests}

    async def counters(self):
        return self._taps

    async def denied(self):
        return self._numbers

    async def connections(self):
        return self._numbers


@pytest.fixture
def many():
    """A view with 4,000 ports."""
    view = View()
    spec = NetworkSpec("default", "nexbr0", Subnet(IPv4Network("172.16.0.0/12")))
    view.put_network(spec)
    model = Guest(
        "", "", "nexbr0", "", 1500, spec.gateway, spec.gateway, None, None, Policy(), 1, Limits()
    )
    for number in range(PORTS):
        address = IPv4Address("172.16.0.2") + number
        guest = replace(model, vm_id=new_vm_id(), tap=f"nexus{number}", ipv4=address)
        port = Port(number, guest.vm_id, "default", number + 2, "nexbr0", guest.tap, "", 0.0)
        view.put_port(port, guest)
    return view


def scrape_from_afar(path):
    """Scrape in a thread; return the body, and how many seconds it took."""
    before = time.perf_counter()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        body = b"".join(iter(lambda: client.recv(1 << 20), b""))
    return body, time.perf_counter() - before


async def test_a_scrape_of_4000_ports_is_quick_and_takes_little_of_the_loop(
    many, tmp_path, monkeypatch
):
    monkeypatch.setattr(metrics, "FRESH", 0.0)  # the dearest: nothing is known from before
    path = tmp_path / "metrics.sock"
    figures = metrics.Figures(ManyPorts(many.guests.values()), many, lambda: 0)
    seconds, of_the_loop = [], []
    async with telemetry("netd", ""), prometheus("", path):
        with figures.served():
            for _ in range(4):
                before = time.thread_time()
                body, spent = await asyncio.to_thread(scrape_from_afar, path)
                of_the_loop.append(time.thread_time() - before)
                seconds.append(spent)
    assert body.count(b"nexus_netd_port_connections{") == PORTS
    # Bounds for any machine; what it takes is `make bench`'s to measure.
    assert min(seconds) < 10, seconds
    assert min(of_the_loop) < 0.5, of_the_loop
