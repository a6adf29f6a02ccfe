"""Attacks on netd itself: by a resolver that was taken over, and by clients of its socket."""

import asyncio
import fcntl
import json
import signal
import socket
import subprocess

import pytest
from guests import Stack
from netd_process import configure, running
from pinning import pinning_resolver

from nexus.netd.v1 import netd_pb2 as pb
from nexus.netd.v1 import resolver_pb2
from nexus_rpc.ids import new_vm_id

AT_ONCE = 5.0
"""Seconds in which a call is answered, whatever is thrown at netd meanwhile."""
SECONDS = 30
FAR = "2606:4700::1111"


@pytest.fixture
async def netd(namespace, tmp_path):
    configure(tmp_path, resolver=f"unix:{tmp_path}/dns.sock", ipv6_subnet="fd6e:6578:7573::/64")
    async with running(tmp_path) as netd:
        yield netd


@pytest.fixture
async def resolver(netd, tmp_path):
    """A resolver in an attacker's hands."""
    async with pinning_resolver(tmp_path / "dns.sock") as resolver:
        yield resolver


async def attach(netd, *rules):
    policy = pb.EgressPolicy(mode=pb.EGRESS_MODE_RULES, rules=rules)
    request = pb.AttachPortRequest(vm_id=new_vm_id(), policy=policy)
    return (await netd.stub.AttachPort(request)).port


async def answered(netd):
    """Have a call answered at once. TimeoutError."""
    async with asyncio.timeout(AT_ONCE):
        await netd.stub.GetNetwork(pb.GetNetworkRequest(name="default"))


def tables():
    """Return our tables' handles: other ones once they have been written anew."""
    listed = subprocess.run(["nft", "-j", "list", "tables"], check=True, capture_output=True)
    found = [one.get("table", {}) for one in json.loads(listed.stdout)["nftables"]]
    return [table["handle"] for table in found if table.get("name") == "nexus"]


async def test_a_rule_that_is_named_a_million_times_costs_no_time(netd, resolver):
    port = await attach(netd, pb.EgressRule(domain="good.example"))
    addresses = [f"203.1.113.{n}" for n in range(32)]
    asked = asyncio.create_task(
        resolver.pin(port.vm_id, "good.example", addresses, [0] * 1_000_000)
    )
    for _ in range(5):
        await answered(netd)
    assert not await asked


async def test_a_name_of_megabytes_is_not_kept(netd, resolver):
    port = await attach(netd, pb.EgressRule(domain="*.good.example"))
    name = "x" * 10_000_000 + ".good.example"
    assert not await resolver.pin(port.vm_id, name, ["203.1.113.1"], [0])


async def test_one_address_by_many_names_does_not_have_all_rules_written_anew(netd, resolver):
    port = await attach(netd, pb.EgressRule(domain="good.example"))
    before = tables()
    await resolver.pin(port.vm_id, "good.example", [f"{FAR}%{n}" for n in range(32)], [0])
    assert len(before) == 2
    assert tables() == before


async def test_a_lie_is_told_to_nobody_as_it_is(netd, resolver):
    port = await attach(netd, pb.EgressRule(domain="good.example"))
    for name in ("evil\n{}", "\x1b[2J", "ev il", "\u202eelpmaxe", "evil.example"):
        denial = resolver_pb2.NameDenial(vm_id=port.vm_id, domain=name, rule="name")
        await resolver.say(resolver_pb2.DriveResponse(denial=denial))
    names = set()
    call = netd.stub.WatchDenials(pb.WatchDenialsRequest(last=10, follow=True))
    async with asyncio.timeout(SECONDS):
        while "evil.example" not in names:
            names.add((await call.read()).denial.domain)
    call.cancel()
    assert names == {"evil.example"}


@pytest.mark.parametrize("address", ["172.16.0.1", "192.0.2.1"])
async def test_what_a_guest_opened_while_the_rules_were_gone_is_cut(
    netd, cables, namespace, address
):
    request = pb.AttachPortRequest(vm_id=new_vm_id())
    guest = cables.guest((await netd.stub.AttachPort(request)).port)
    host, loop = Stack(namespace), asyncio.get_running_loop()
    host.ip("addr add 192.0.2.1/32 dev lo")
    # Somebody else has connections tracked, as most firewalls do.
    nft("add table inet theirs")
    nft("add chain inet theirs in { type filter hook input priority 0 ; }")
    nft("add rule inet theirs in ct state established accept")
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("0.0.0.0", 7999))
        listener.listen()
        netd.process.send_signal(signal.SIGSTOP)
        nft("delete table inet nexus")
        nft("delete table bridge nexus")
        client = guest.socket(socket.AF_INET, socket.SOCK_STREAM)
        with client:
            async with asyncio.timeout(SECONDS):
                await loop.sock_connect(client, (address, 7999))
                server, _ = await loop.sock_accept(listener)
                netd.process.send_signal(signal.SIGCONT)
                while len(tables()) < 2:  # noqa: ASYNC110  # nothing tells of it
                    await asyncio.sleep(0.02)
                await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())  # its turn comes after
                with server:
                    await loop.sock_sendall(client, b"secret")
                    with pytest.raises(ConnectionError):
                        await loop.sock_recv(client, 1)
                    with pytest.raises(BlockingIOError):
                        server.recv(1)


async def test_a_lock_that_anybody_may_hold_does_not_keep_netd_from_starting(namespace, tmp_path):
    configure(tmp_path)
    fcntl.flock(namespace, fcntl.LOCK_EX)
    async with running(tmp_path) as netd:
        await answered(netd)


def nft(command):
    """Run an nft(8) command."""
    subprocess.run(["nft", *command.split()], check=True)
