"""Linux alone: what the fake cannot show."""

import subprocess
from ipaddress import IPv4Interface, IPv4Network

import pytest

from nexus_netd import firewall
from nexus_netd.kernel import Bridge, KernelError, Plug
from nexus_netd.linux import Linux
from nexus_rpc.ids import new_vm_id

SUBNET = IPv4Network("172.16.0.0/12")


def ip(command):
    subprocess.run(["ip", *command.split()], check=True)


@pytest.fixture
async def linux(namespace):
    linux = await Linux.open()
    yield linux
    await linux.close()


@pytest.mark.parametrize(
    ("command", "overlap"),
    [
        ("addr add 172.17.0.1/16 dev lo", "172.17.0.0/16"),
        ("addr add 172.31.9.9/32 dev lo", "172.31.9.9/32"),
        ("route add 172.0.0.0/8 dev lo", "172.0.0.0/8"),
        ("route add blackhole 172.16.9.0/24", "172.16.9.0/24"),
        ("route add 172.18.0.0/16 dev lo table 77", "172.18.0.0/16"),
        (
            "route add 172.19.0.0/16 nexthop dev lo weight 1 nexthop dev eth8 weight 1",
            "172.19.0.0/16",
        ),
        ("route add default dev lo", None),
        ("route add 128.0.0.0/1 dev lo", None),
        ("route add 172.32.0.0/16 dev lo", None),
        ("addr add 10.0.0.1/8 dev lo", None),
    ],
)
async def test_overlaps(linux, command, overlap):
    ip("link set lo up")
    ip("link add eth8 type veth peer name eth9")
    ip("link set eth8 up")
    ip(command)
    found = {str(overlap.network) for overlap in await linux.overlaps(SUBNET, "nexbr0")}
    assert overlap in found if overlap else not found


async def test_a_rule_that_was_removed_is_seen(linux):
    want = firewall.table("nexbr0", SUBNET)
    await linux.put_table(firewall.Table(want.comment, want.chains, want.rules[1:]))
    assert await linux.table() != want
    await linux.put_table(want)
    assert await linux.table() == want


async def test_the_kernel_s_own_words_are_in_the_error(linux):
    with pytest.raises(KernelError, match=r"set bridge nexbr0: mtu greater than device maximum"):
        await linux.put_bridge(Bridge("nexbr0", "02:fc:ac:10:00:01", 70_000))


async def test_three_hundred_taps_are_listed_whole(linux):
    await linux.put_bridge(Bridge("nexbr0", "02:fc:ac:10:00:01", 1500))
    made = set()
    for number in range(300):
        address = IPv4Interface(f"172.16.{1 + number // 250}.{1 + number % 250}/12")
        mac = f"02:fc:ac:10:{1 + number // 250:02x}:{1 + number % 250:02x}"
        async with linux.new_tap(Plug(new_vm_id(), "nexbr0", address, mac, 1500), 1) as tap:
            await tap.keep()
        made.add(tap.name)
    assert {tap.name for tap in await linux.taps("nexbr0")} == made
