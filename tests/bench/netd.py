"""`make bench-net`: measures netd natively, as root, in fresh network namespaces of this machine.

    netd.py [--ports N] [--rounds N] [--out FOLDER]

Three hosts stand side by side: one whose netd has 10 ports, one whose netd has 4,000, and one where
CNI's plugins do the same; what is compared is measured in turns, so that whatever else the machine
does hits all alike. A fourth has a bridge without any rule. Prints a report; figures and a plot go
to FOLDER.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from cni import Cni
from damage import repairs
from guests import Cables
from netd_process import configure, running
from netns import entered
from report import write
from traffic import Wire, alone_on_a_cpu, frames_a_second, open_tap, outside, ping_pong

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.ids import new_vm_id

FEW = 10
_FILLERS = 32
_SAMPLES = 16
"""Places on the way to all ports where attaching is timed."""
_NEAR, _FAR = "198.51.100.1", "198.51.100.2"  # TEST-NET-2 (RFC 5737)
_BARE_GUEST, _BARE_GATEWAY = "192.0.2.2", "192.0.2.1"  # TEST-NET-1
_BARE_MACS = "02:fc:c0:00:02:02", "02:fc:c0:00:02:01"
_PING_PONGS = 100
_FRAMES_SECONDS = 0.15
_TURNS = 40
_SMALL, _LARGE = 106, 1_514


_REST = 0.03
"""Seconds after a detach in which the kernel ends what it had put off, on nobody's account."""


def shuffled(names):
    """Return the names in a new order, so that none has to come after the same other each time."""
    return random.sample(list(names), len(names))


class Host:
    """A namespace that stands for a host with an uplink, and its netd."""

    def __init__(self, cables):
        here = cables.namespace()
        self.descriptor = here.descriptor
        self.stack = here
        with entered(self.descriptor):
            self.outside = cables.host(f"{_NEAR}/24", f"{_FAR}/24")
        self.stub = None
        self.directory = None
        self.filled = []

    async def start(self, stack, directory):
        directory.mkdir()
        configure(directory)
        with entered(self.descriptor):
            netd = await stack.enter_async_context(running(directory))
        self.stub, self.directory = netd.stub, directory

    async def attach(self):
        """Attach a port; return it and the milliseconds it took."""
        request = pb.AttachPortRequest(vm_id=new_vm_id())
        began = time.perf_counter()
        port = (await self.stub.AttachPort(request)).port
        return port, (time.perf_counter() - began) * 1_000

    async def detach(self, port):
        """Detach it; return the milliseconds it took."""
        request = pb.DetachPortRequest(vm_id=port.vm_id)
        began = time.perf_counter()
        await self.stub.DetachPort(request)
        return (time.perf_counter() - began) * 1_000

    async def fill(self, count):
        """Attach until there are `count`, with many clients at a time."""
        left = iter(range(count - len(self.filled)))

        async def client():
            for _ in left:
                self.filled.append((await self.attach())[0])

        await asyncio.gather(*(client() for _ in range(_FILLERS)))


async def fill_and_sample(host, count):
    """Fill the host; return the p50 of AttachPort on the way, as (ports, milliseconds)."""
    points = []
    for step in range(_SAMPLES + 1):
        await host.fill(max(FEW, count * step // _SAMPLES))
        pairs = [await host.attach() for _ in range(9)]
        points.append((len(host.filled), statistics.median(taken for _, taken in pairs)))
        for port, _ in pairs:
            await host.detach(port)
    return points


async def ports_in_turns(cables, hosts, cni_host, directory, rounds):
    """Time attach and detach on each host and by CNI, in turns; milliseconds by name."""
    cni = Cni(directory)
    attach = {name: [] for name in ("CNI", *hosts)}
    detach = {name: [] for name in ("CNI", *hosts)}
    for number in range(rounds):
        # The namespace is the runtime's part, so it is made before the clock starts; and it is
        # kept, for the kernel's work at its end would be charged to others.
        inner = cables.namespace().descriptor
        container, path = f"bench{number}", f"/proc/{os.getpid()}/fd/{inner}"
        given = {}
        for name in shuffled(attach):
            if name == "CNI":
                with entered(cni_host.descriptor):
                    began = time.perf_counter()
                    given[name] = cni.add(container, path)
                    taken = (time.perf_counter() - began) * 1_000
            else:
                given[name], taken = await hosts[name].attach()
            attach[name].append(taken)
        for name in shuffled(detach):
            if name == "CNI":
                with entered(cni_host.descriptor):
                    began = time.perf_counter()
                    cni.delete(container, path, given[name])
                    taken = (time.perf_counter() - began) * 1_000
            else:
                taken = await hosts[name].detach(given[name])
            detach[name].append(taken)
            await asyncio.sleep(_REST)
    return attach, detach


def wire(host, port, stack):
    """Return the guest's end of a port."""
    with entered(host.descriptor):
        descriptor = open_tap(port.tap)
    stack.callback(os.close, descriptor)
    gateway_mac = "02:fc:" + bytes(map(int, port.gateway.split("."))).hex(":")
    return Wire(
        descriptor,
        address=port.ipv4.split("/")[0],
        mac=port.mac,
        gateway=port.gateway,
        gateway_mac=gateway_mac,
    )


def bare_wire(host, stack):
    """Return a guest's end on a bridge that nobody guards: routed, without rules and NAT."""
    mac, gateway_mac = _BARE_MACS
    with entered(host.descriptor):
        descriptor = open_tap("bare0")
    stack.callback(os.close, descriptor)
    for command in (
        f"link add br0 address {gateway_mac} up type bridge",
        f"addr add {_BARE_GATEWAY}/24 dev br0",
        "link set bare0 master br0 up",
        f"neigh replace {_BARE_GUEST} lladdr {mac} dev br0 nud permanent",
    ):
        host.stack.ip(command)
    host.stack.set("ipv4/ip_forward", 1)
    host.outside.ip(f"route add default via {_NEAR}")
    return Wire(
        descriptor,
        address=_BARE_GUEST,
        mac=mac,
        gateway=_BARE_GATEWAY,
        gateway_mac=gateway_mac,
    )


def traffic_in_turns(wires):
    """Measure latency and throughput of each guest, in turns: by name, turn by turn."""
    latency = {name: [] for name in wires}
    small = {name: [] for name in wires}
    large = {name: [] for name in wires}
    with alone_on_a_cpu():
        for _ in range(_TURNS):
            for name in shuffled(wires):
                latency[name].append(ping_pong(wires[name], _FAR, _PING_PONGS))
            for name in shuffled(wires):
                rate = frames_a_second(wires[name], _FAR, _SMALL, _FRAMES_SECONDS)
                small[name].append(rate)
            for name in shuffled(wires):
                rate = frames_a_second(wires[name], _FAR, _LARGE, _FRAMES_SECONDS)
                large[name].append(rate)
    return latency, small, large


async def scrape(host):
    """Return the milliseconds of one scrape, and its bytes."""
    taken, size = [], 0
    for _ in range(5):
        began = time.perf_counter()
        reader, writer = await asyncio.open_unix_connection(str(host.directory / "metrics.sock"))
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        size = len(await reader.read(-1))
        writer.close()
        taken.append((time.perf_counter() - began) * 1_000)
    return statistics.median(taken), size


async def measure(ports, rounds, directory):
    """Measure everything."""
    async with AsyncExitStack() as stack:
        cables = stack.enter_context(Cables())
        few, many, bare, cni_host = (Host(cables) for _ in range(4))
        await few.start(stack, directory / "few")
        await many.start(stack, directory / "many")
        await few.fill(FEW)
        began = time.perf_counter()
        curve = await fill_and_sample(many, ports)
        figures = {"ports": ports, "rounds": rounds, "curve": curve}
        figures["fill_seconds"] = time.perf_counter() - began
        hosts = {f"{FEW} ports": few, f"{ports:,} ports": many}
        figures["attach"], figures["detach"] = await ports_in_turns(
            cables, hosts, cni_host, directory / "cni", rounds
        )
        with ExitStack() as ends:
            wires = {"no rules": bare_wire(bare, ends)}
            for name, host in hosts.items():
                wires[name] = wire(host, host.filled[len(host.filled) // 2], ends)
            for host in (bare, few, many):
                ends.enter_context(outside(host.outside, _FAR))
            # On a thread, since it blocks, but with nothing else to do here.
            latency, small, large = await asyncio.to_thread(traffic_in_turns, wires)
        figures["latency"], figures["small"], figures["large"] = latency, small, large
        figures["scrape"] = {name: await scrape(host) for name, host in hosts.items()}
        figures["repairs"] = await asyncio.to_thread(
            lambda: {name: repairs(host) for name, host in hosts.items()}
        )
        return figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nexus-") as directory:
        figures = asyncio.run(measure(options.ports, options.rounds, Path(directory)))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "netd.json").write_text(json.dumps(figures) + "\n")
    return write(figures, options.out / "netd.svg")


if __name__ == "__main__":
    sys.exit(main())
