"""What the person meets who upgrades netd, goes back, or edits its settings, with VMs running."""

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager

import pytest
from agreement import check_agreement
from guests import Stack, open_tap
from netd_process import SECONDS, configure, running
from packets import echo

from nexus.netd.v1 import netd_pb2 as pb
from nexus_netd.records.schema import MIGRATIONS
from nexus_rpc.ids import new_vm_id

OUTSIDE = "192.0.2.2"
MOMENT = 0.5
"""Seconds that a guest may be without network while it goes over."""

OLD_RULES = """
table inet nexus {
  comment "nexus-netd 5ba2024f978ff565"
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "nexbr0" oifname "nexbr0" reject with icmpx admin-prohibited
    iifname "nexbr0" accept
    oifname "nexbr0" ct state established,related accept
    oifname "nexbr0" reject with icmpx admin-prohibited
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 172.16.0.0/12 oifname != "nexbr0" masquerade
  }
}
"""


@pytest.fixture
def outside(namespace, cables):
    """A host beyond this one, at OUTSIDE."""
    before = {name for _, name in socket.if_nameindex()}
    cables.host("192.0.2.1/24", f"{OUTSIDE}/24")
    return {name for _, name in socket.if_nameindex()} | before


async def attach(netd):
    return (await netd.stub.AttachPort(pb.AttachPortRequest(vm_id=new_vm_id()))).port


def old_store(path, ports):
    """Make a database as netd wrote it when there was one network."""
    with sqlite3.connect(path) as database:
        database.executescript(MIGRATIONS[0])
        database.execute("INSERT INTO pool VALUES (1, '172.16.0.0/12', 5)")
        database.executemany("INSERT INTO leases VALUES (?, ?, ?, ?)", ports)
        database.execute("INSERT INTO freed (host) VALUES (3)")
        database.execute("PRAGMA user_version = 1")
    database.close()


def old_network(here, ports):
    """Make what that netd had in the kernel: a connected route, no route to a guest alone."""
    here.ip("link add nexbr0 type bridge")
    here.ip("link set nexbr0 address 02:fc:ac:10:00:01 alias nexus-network@default")
    here.ip("addr add 172.16.0.1/12 dev nexbr0")
    here.ip("link set nexbr0 up")
    for host, vm_id, tap, _ in ports:
        here.ip(f"tuntap add {tap} mode tap user 4242")
        here.ip(f"link set {tap} alias nexus-vm@{vm_id} master nexbr0")
        here.ip(f"link set {tap} type bridge_slave isolated on learning off flood off locked on")
        subprocess.run(
            f"bridge fdb replace 02:fc:ac:10:00:{host:02x} dev {tap} master static".split(),
            check=True,
        )
        here.ip(f"link set {tap} up")
    here.set("ipv4/ip_forward", 1)
    subprocess.run(["nft", "-f", "-"], input=OLD_RULES, text=True, check=True)


class Pinger:
    """Pings without a pause; `longest` is the longest time without an answer, in seconds."""

    def __init__(self, guest, address):
        self._guest = guest
        self._address = address
        self.longest = 0.0

    async def run(self):
        loop = asyncio.get_running_loop()
        with self._guest.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            icmp.connect((self._address, 0))
            last = time.monotonic()
            while True:
                await loop.sock_sendall(icmp, echo("0.0.0.0", self._address, b"")[20:])
                try:
                    async with asyncio.timeout(0.02):
                        while (await loop.sock_recv(icmp, 2048))[20] != 0:
                            pass
                except (TimeoutError, OSError):
                    self.longest = max(self.longest, time.monotonic() - last)
                    continue
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now


@asynccontextmanager
async def pinging(guest, address):
    """Ping while the block runs."""
    pinger = Pinger(guest, address)
    task = asyncio.create_task(pinger.run())
    try:
        yield pinger
    finally:
        task.cancel()
        await asyncio.wait({task})


def logged(directory, level=("error", "warning", "info")):
    """Return the messages of the log."""
    lines = [json.loads(line) for line in (directory / "log").read_text().splitlines()]
    return [line["message"] for line in lines if line["level"] in level]


async def refusal(directory):
    """Return what a netd that cannot start says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nexus_netd", "--config", directory / "netd.toml"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode
    return said.decode()


async def test_running_guests_of_the_netd_before_networks_go_over(
    namespace, outside, cables, tmp_path
):
    ports = [(host, new_vm_id(), f"nexus{host - 2}", 1.0 + host) for host in (2, 4)]
    old_network(Stack(namespace), ports)
    old_store(tmp_path / "netd.db", ports)
    configure(tmp_path)
    first = pb.Port(
        tap="nexus0", mac="02:fc:ac:10:00:02", ipv4="172.16.0.2/12", gateway="172.16.0.1"
    )
    guest = cables.guest(first)
    assert await guest.ping(OUTSIDE)
    async with pinging(guest, OUTSIDE) as pinger, running(tmp_path) as netd:
        listed = (await netd.stub.ListPorts(pb.ListPortsRequest())).ports
        assert [(port.vm_id, port.tap, port.ipv4, port.mac) for port in listed] == [
            (vm_id, tap, f"172.16.0.{host}/12", f"02:fc:ac:10:00:{host:02x}")
            for host, vm_id, tap, _ in ports
        ]
        assert (await attach(netd)).ipv4 == "172.16.0.5/12"
        await check_agreement(netd.stub, others=outside, held={"nexus0"})
        assert await guest.ping(OUTSIDE)
        assert await guest.ping("172.16.0.1")
    assert pinger.longest < MOMENT


async def test_a_tap_of_before_is_its_vm_s_own_once_the_vm_of_before_lets_go(namespace, tmp_path):
    ports = [(2, new_vm_id(), "nexus0", 3.0)]
    old_network(Stack(namespace), ports)
    old_store(tmp_path / "netd.db", ports)
    configure(tmp_path)
    with ExitStack() as vm:
        vm.callback(os.close, open_tap("nexus0"))
        async with running(tmp_path) as netd:
            await check_agreement(netd.stub, held={"nexus0"})
            happenings = netd.stub.WatchNetwork(pb.WatchNetworkRequest())
            await happenings.initial_metadata()
            vm.close()
            async with asyncio.timeout(SECONDS):
                async for happening in happenings:
                    if happening.details == "TAP nexus0 given to its VM's own user":
                        break
            await check_agreement(netd.stub)


async def test_a_store_of_a_later_netd_is_refused_and_left_alone(netd, tmp_path, namespace):
    await attach(netd)
    netd.process.terminate()
    await netd.process.wait()
    with sqlite3.connect(tmp_path / "netd.db") as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    said = await refusal(tmp_path)
    assert "it was written by a newer Nexus; install that one" in said
    assert "nexus0" in {name for _, name in socket.if_nameindex()}


async def test_damage_in_the_middle_of_the_store_is_found_before_the_kernel_is_touched(
    netd, tmp_path
):
    for _ in range(40):
        await attach(netd)
    netd.process.terminate()
    await netd.process.wait()
    whole = (tmp_path / "netd.db").read_bytes()
    with sqlite3.connect(tmp_path / "netd.db") as database:
        (page,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ports_by_network'"
        ).fetchone()
    database.close()
    at = 4096 * (page - 1)
    (tmp_path / "netd.db").write_bytes(whole[:at] + bytes(4096) + whole[at + 4096 :])
    assert "put back a copy of it" in await refusal(tmp_path)
    assert len([name for _, name in socket.if_nameindex() if name.startswith("nexus")]) == 40


async def test_a_bridge_of_another_name_takes_the_running_guests(
    namespace, outside, cables, tmp_path
):
    configure(tmp_path)
    async with running(tmp_path) as netd:
        port = await attach(netd)
        guest = cables.guest(port)
        assert await guest.ping(OUTSIDE)
    configure(tmp_path, bridge="guests")
    async with pinging(guest, OUTSIDE) as pinger, running(tmp_path) as netd:
        now = (await netd.stub.GetPort(pb.GetPortRequest(vm_id=port.vm_id))).port
        assert (now.bridge, now.tap, now.ipv4) == ("guests", port.tap, port.ipv4)
        assert await guest.ping(OUTSIDE)
        await check_agreement(netd.stub, others=outside)
    assert pinger.longest < MOMENT
    assert "network default: bridge set anew, as the settings have it" in logged(tmp_path)


async def test_settings_are_carried_over_to_the_kernel(namespace, outside, cables, tmp_path):
    configure(tmp_path)
    async with running(tmp_path) as netd:
        guest = cables.guest(await attach(netd))
    changes = {
        "mtu": 1400,
        "dns": ["9.9.9.9"],
        "ipv6_subnet": "fd00:1:2:3::/64",
        "connections": 100,
        "host_ports": ["tcp/8080"],
    }
    configure(tmp_path, **changes)
    async with pinging(guest, OUTSIDE) as pinger, running(tmp_path) as netd:
        await check_agreement(netd.stub, others=outside)
        network = (await netd.stub.GetNetwork(pb.GetNetworkRequest())).network
        assert (network.mtu, list(network.dns), network.ipv6_subnet) == (
            1400,
            ["9.9.9.9"],
            "fd00:1:2:3::/64",
        )
        assert await guest.ping(OUTSIDE)
    assert pinger.longest < MOMENT


async def test_another_subnet_is_refused_with_the_way_out(netd, tmp_path):
    await attach(netd)
    netd.process.terminate()
    await netd.process.wait()
    configure(tmp_path, subnet="10.9.0.0/24")
    assert "move them by `nexusctl net migrate`" in await refusal(tmp_path)
    assert "nexus0" in {name for _, name in socket.if_nameindex()}


async def test_a_stricter_policy_in_the_settings_cuts_what_is_open(
    namespace, outside, cables, tmp_path
):
    configure(tmp_path)
    async with running(tmp_path) as netd:
        guest = cables.guest(await attach(netd))
        assert await guest.ping(OUTSIDE)
        assert await connections(netd, guest) == 1
    configure(tmp_path, policy="none")
    async with running(tmp_path) as netd:
        assert await connections(netd, guest) == 0


async def connections(netd, guest):
    port = (await netd.stub.GetPort(pb.GetPortRequest(vm_id=guest.port.vm_id))).port
    return port.counters.connections


async def test_a_second_netd_does_not_take_the_first_one_s_taps_for_orphans(netd, tmp_path):
    await attach(netd)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "netd.toml", other)
    configure(other)
    assert "another netd, with other settings, serves this host's network" in await refusal(other)
    assert "nexus0" in {name for _, name in socket.if_nameindex()}
