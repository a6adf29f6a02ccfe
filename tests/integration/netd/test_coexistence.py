"""Other people's firewalls and networks beside ours, with packets as evidence.

Theirs works the same before netd starts, while it runs, and after CleanupNetwork; what ours cannot
do because of theirs is told, and `nexusctl setup-firewall` puts it right.
"""

import asyncio
import json
import socket
import subprocess
from contextlib import AsyncExitStack
from typing import ClassVar

import pytest
from guests import Cables, Stack
from netd_process import configure, running

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.ids import new_vm_id
from nexusctl.firewall import plan
from nexusctl.firewall.host import Guests, ThisHost

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # TEST-NET-2 (RFC 5737)
SUBNET, GATEWAY = "10.77.0.0/16", "10.77.0.1"
SECONDS = 10
REPAIR_SECONDS = 30
_ETH_P_ALL = 3
RESOLVER_PORT = 7753

UFW = """
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lo" accept
    icmp type echo-request accept
    tcp dport 22 accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ip saddr 192.0.2.0/24 tcp dport 7004 accept
  }
  chain output {
    type filter hook output priority filter; policy accept;
  }
}
"""
DOCKER = """
-t nat -N DOCKER
-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-t nat -A DOCKER -i docker0 -j RETURN
-t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-N DOCKER
-N DOCKER-USER
-P FORWARD DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -d 172.17.0.2 -p tcp --dport 80 -j ACCEPT
"""
"""What Docker tells iptables, by default, with one published port."""


def run(*command, text=None):
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


def rules(*tables):
    """Return what is in tables, as nft(8) prints it, but for the counters."""
    text = "".join(run("nft", "--stateless", "list", "table", *table.split()) for table in tables)
    return [line.strip() for line in text.splitlines()]


class Place:
    """A host on the way from others to the outside, which answers on TCP port 7004."""

    def __init__(self, cables, namespace):
        self.cables = cables
        self.here = Stack(namespace)
        self.outside = cables.host(f"{UPLINK}/24", f"{OUTSIDE}/24")
        self.here.ip(f"route add default via {OUTSIDE}")
        self.here.set("ipv4/ip_forward", 1)
        self.ears = {"outside": self._ear(self.outside)}

    def _ear(self, stack):
        return self.cables.ear(
            stack.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        )

    def listen(self, name, stack):
        """Hear what comes to a stack."""
        self.ears[name] = self._ear(stack)

    async def arrives(self, sender, address, at, port=9):
        """Whether a datagram arrives; what is forwarded is so in the call that sends it."""
        words = f"{id(sender)}-{address}-{port}-{at}".encode()
        self.ears[at].forget()
        with sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(words, (address, port))
        if hasattr(sender, "flush"):
            sender.flush()
        return bool(self.ears[at].with_(words))

    async def hears(self, sender, address, port):
        """Whether a datagram from elsewhere reaches a socket of the host."""
        with self.here.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("0.0.0.0", port))
            with sender.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"anybody?", (address, port))
            if hasattr(sender, "flush"):
                sender.flush()
            try:
                return server.recv(100) != b""
            except BlockingIOError:
                return False


class Ufw(Place):
    """A host with a firewall of its own, which forwards port 7004 for one network."""

    TABLES = ("inet filter",)

    def __init__(self, cables, namespace):
        super().__init__(cables, namespace)
        self.load()
        self.other = cables.host("192.0.2.1/24", "192.0.2.2/24")
        self.other.ip("route add default via 192.0.2.1")
        self.outside.ip(f"route add 192.0.2.0/24 via {UPLINK}")
        self.listen("other", self.other)

    def load(self):
        run("nft", "-f", "-", text=UFW)

    async def observe(self):
        """Return what works and what does not, by name."""
        async with (
            self.here.telling_peers("0.0.0.0", 22),
            self.outside.telling_peers(OUTSIDE, 7004),
        ):
            return {
                "allowed in": await self.outside.talk(UPLINK, 22) == OUTSIDE,
                "not allowed in": await self.hears(self.outside, UPLINK, 2222),
                "ping": await self.outside.ping(UPLINK),
                "out": await self.here.talk(OUTSIDE, 7004) == UPLINK,
                "forwarded": await self.other.talk(OUTSIDE, 7004) == "192.0.2.2",
                "not forwarded": await self.arrives(self.other, OUTSIDE, "outside"),
                "not forwarded back": await self.arrives(self.outside, "192.0.2.2", "other"),
            }

    EXPECTED: ClassVar = {
        "allowed in": True,
        "not allowed in": False,
        "ping": True,
        "out": True,
        "forwarded": True,
        "not forwarded": False,
        "not forwarded back": False,
    }


class Docker(Place):
    """A host with two containers on a bridge of their own, and a published port."""

    TABLES = ("ip nat", "ip filter")

    def __init__(self, cables, namespace):
        super().__init__(cables, namespace)
        self.load()
        self.here.ip("link add docker0 type bridge")
        self.here.ip("addr add 172.17.0.1/16 dev docker0")
        self.here.ip("link set docker0 up")
        self.container, self.second = (self._container(number) for number in (2, 3))
        self.listen("container", self.container)
        self.outside.ip(f"route add 172.17.0.0/16 via {UPLINK}")

    def _container(self, number):
        stack = self.cables.member("docker0", f"172.17.0.{number}/16")
        stack.ip("route add default via 172.17.0.1")
        return stack

    def load(self):
        for line in DOCKER.strip().splitlines():
            run("iptables", *line.split())

    async def observe(self):
        """Return what works and what does not, by name."""
        async with (
            self.container.telling_peers("172.17.0.2", 80),
            self.outside.telling_peers(OUTSIDE, 7004),
        ):
            return {
                "out by NAT": await self.container.talk(OUTSIDE, 7004) == UPLINK,
                "published": await self.outside.talk(UPLINK, 8080) == OUTSIDE,
                "published here": await self.here.talk(UPLINK, 8080) == UPLINK,
                "the container": await self.here.talk("172.17.0.2", 80) == "172.17.0.1",
                "its neighbour": await self.second.talk("172.17.0.2", 80) == "172.17.0.3",
                "not published": await self.arrives(self.outside, "172.17.0.2", "container"),
            }

    EXPECTED: ClassVar = {
        "out by NAT": True,
        "published": True,
        "published here": True,
        "the container": True,
        "its neighbour": True,
        "not published": False,
    }


@pytest.fixture
async def cables():
    """In place of the one of all tests here: namespaces go after netd has."""
    with Cables() as cables:
        yield cables


@pytest.fixture(params=[Ufw, Docker])
async def theirs(request, namespace, cables):
    return request.param(cables, namespace)


@pytest.fixture
async def start(theirs, tmp_path):
    """Start netd, and give back its stub and a guest."""
    async with AsyncExitStack() as stack:

        async def start():
            configure(tmp_path, subnet=SUBNET, host_ports=["tcp/7100"])
            netd = await stack.enter_async_context(running(tmp_path))
            request = pb.AttachPortRequest(vm_id=new_vm_id())
            port = (await netd.stub.AttachPort(request)).port
            return netd.stub, theirs.cables.guest(port)

        yield start


async def warnings(stub):
    return list((await stub.GetNetwork(pb.GetNetworkRequest())).network.warnings)


async def lets_guests_pass(theirs, guest):
    """Return what a guest may do as far as we are concerned, by name."""
    async with (
        theirs.outside.telling_peers(OUTSIDE, 7004),
        theirs.here.telling_peers("0.0.0.0", RESOLVER_PORT),
        theirs.here.telling_peers("0.0.0.0", 7100),
    ):
        return {
            "to the outside": await theirs.arrives(guest, OUTSIDE, "outside"),
            "answered": await _is_told(guest, OUTSIDE, 7004, UPLINK),
            "dns": await _is_told(guest, GATEWAY, 53, guest.address),
            "host port": await _is_told(guest, GATEWAY, 7100, guest.address),
            "no other port": await theirs.hears(guest, GATEWAY, 7101),
            "no other address": await theirs.hears(guest, UPLINK, 7101),
        }


ALL = {
    "to the outside": True,
    "answered": True,
    "dns": True,
    "host port": True,
    "no other port": False,
    "no other address": False,
}


async def _is_told(guest, address, port, expected):
    """Whether a server tells the guest the address that it is expected to be seen under."""
    try:
        async with asyncio.timeout(2):  # what theirs drops is silent
            return await guest.talk(address, port) == expected
    except TimeoutError:
        return False


async def apply_setup(host):
    """Do what `nexusctl setup-firewall --apply` does for the network "default"."""
    ports = (("udp", RESOLVER_PORT), ("tcp", RESOLVER_PORT), ("tcp", 7100))
    wanted = Guests(("nexbr0",), ipv6=False, ports=ports)
    await plan.apply(host, await plan.look(host, wanted))
    assert await plan.look(host, wanted) == []


async def test_theirs_is_as_before_while_netd_runs_and_after_a_cleanup(theirs, start):
    assert await theirs.observe() == theirs.EXPECTED
    before = rules(*theirs.TABLES)
    stub, guest = await start()
    assert await guest.ping(GATEWAY)
    assert await theirs.observe() == theirs.EXPECTED
    assert rules(*theirs.TABLES) == before
    await stub.CleanupNetwork(pb.CleanupNetworkRequest())
    assert await theirs.observe() == theirs.EXPECTED
    assert rules(*theirs.TABLES) == before


async def test_what_theirs_drops_is_told_and_can_be_set_up(theirs, start):
    stub, guest = await start()
    passing = await lets_guests_pass(theirs, guest)
    assert passing["to the outside"] is False
    told = await warnings(stub)
    for table, chain, hook in drops(theirs):
        assert [text for text in told if table in text and chain in text], (hook, told)
    assert all("nexusctl setup-firewall" in text for text in told)
    await apply_setup(ThisHost())
    assert await lets_guests_pass(theirs, guest) == ALL
    assert await theirs.observe() == theirs.EXPECTED


def drops(theirs):
    """Return table, chain and hook of each chain of theirs that drops by policy."""
    listed = json.loads(run("nft", "--json", "list", "ruleset"))["nftables"]
    chains = [entry["chain"] for entry in listed if "chain" in entry]
    return [
        (f"{chain['family']} {chain['table']}", chain["name"], chain["hook"])
        for chain in chains
        if chain.get("policy") == "drop" and f"{chain['family']} {chain['table']}" in theirs.TABLES
    ]


async def test_a_reload_of_theirs_flushes_ours_and_ours_is_back(theirs, start):
    stub, guest = await start()
    await apply_setup(ThisHost())
    run("nft", "flush", "ruleset")
    theirs.load()
    async with asyncio.timeout(REPAIR_SECONDS):
        while not await is_refused(theirs, guest):  # noqa: ASYNC110  # packets have no event
            await asyncio.sleep(0.02)
    assert await theirs.observe() == theirs.EXPECTED
    await apply_setup(ThisHost())
    assert await lets_guests_pass(theirs, guest) == ALL
    assert not (await stub.EnsureNetwork(pb.EnsureNetworkRequest())).repaired


async def is_refused(theirs, guest):
    """Whether the guest is kept from the host, at once and told so: by our rules, not by theirs."""
    try:
        async with asyncio.timeout(0.1):
            await guest.talk(UPLINK, 7101)
    except ConnectionRefusedError:
        return "table inet nexus" in run("nft", "list", "tables")
    except TimeoutError:
        return False
    return False


async def test_theirs_does_not_reach_guests_nor_guests_theirs_by_ours(namespace, cables, tmp_path):
    theirs = Docker(cables, namespace)
    configure(tmp_path, subnet=SUBNET)
    async with running(tmp_path) as netd:
        policy = pb.EgressPolicy(mode=pb.EGRESS_MODE_NONE)
        request = pb.AttachPortRequest(vm_id=new_vm_id(), policy=policy)
        guest = cables.guest((await netd.stub.AttachPort(request)).port)
        theirs.listen("guest", guest)
        await apply_setup(ThisHost())
        assert await guest.ping(GATEWAY)
        for sender in (theirs.container, theirs.outside):
            sender.ip(
                "route replace 10.77.0.0/16 via "
                + ("172.17.0.1" if sender is theirs.container else UPLINK)
            )
            assert not await theirs.arrives(sender, guest.address, "guest")
        for address in ("172.17.0.2", "172.17.0.1"):
            assert not await theirs.arrives(guest, address, "container")
        async with theirs.container.telling_peers("172.17.0.2", 80):
            assert not await _is_told(guest, UPLINK, 8080, guest.address)
