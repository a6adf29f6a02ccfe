"""Linux alone: what the fake cannot show."""

import json
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from kernel_values import GATEWAY, NAME, attach, bridge, guest, vm

from nexus_netd.kernel import KernelError, Tap
from nexus_netd.linux.port import Linux
from nexus_rpc.ids import vm_uid

SUBNETS = (ip_network("172.16.0.0/12"), ip_network("fd00:1::/64"))


def run(*command):
    subprocess.run(command, check=True)


def ip(command):
    run("ip", *command.split())


def shown(command):
    """Return what ip(8) shows as JSON."""
    found = subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    return json.loads(found.stdout)


def sysctl(name, value):
    Path("/proc/sys/net", name).write_text(value)


def value_of(name):
    return Path("/proc/sys/net", name).read_text().strip()


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
        ("addr add fd00:1::7/128 dev lo", "fd00:1::7/128"),
        ("-6 route add fd00::/12 dev eth8", "fd00::/12"),
        ("-6 route add blackhole fd00:1::/80", "fd00:1::/80"),
        ("route add default dev lo", None),
        ("route add 128.0.0.0/1 dev lo", None),
        ("route add 172.32.0.0/16 dev lo", None),
        ("addr add 10.0.0.1/8 dev lo", None),
        ("addr add fd00:2::1/64 dev lo", None),
        ("-6 route add default dev eth8", None),
    ],
)
async def test_overlaps(linux, command, overlap):
    ip("link set lo up")
    ip("link add eth8 type veth peer name eth9")
    ip("link set eth8 up")
    ip(command)
    found = {str(overlap.network) for overlap in await linux.overlaps(SUBNETS, [NAME])}
    assert overlap in found if overlap else not found


async def test_an_overlap_names_subnet_and_link(linux):
    ip("link set lo up")
    ip("addr add 172.31.9.9/32 dev lo")
    (overlap,) = await linux.overlaps(SUBNETS, [NAME])
    assert (overlap.link, overlap.subnet) == ("lo", SUBNETS[0])


async def test_the_kernel_s_own_words_are_in_the_error(linux):
    with pytest.raises(KernelError, match=r"set bridge nexbr0: mtu greater than device maximum"):
        await linux.put_bridge(bridge(mtu=70_000))


@pytest.mark.parametrize(
    "change",
    [
        "sysctl ipv4/conf/nexbr0/forwarding 0",
        "sysctl ipv4/conf/nexbr0/proxy_arp 0",
        "sysctl ipv4/conf/nexbr0/proxy_arp_pvlan 0",
        "sysctl ipv4/conf/nexbr0/route_localnet 0",
        "sysctl ipv4/conf/nexbr0/accept_redirects 1",
        "sysctl ipv4/conf/nexbr0/secure_redirects 1",
        "sysctl ipv4/conf/nexbr0/send_redirects 1",
        "sysctl ipv4/conf/nexbr0/accept_source_route 1",
        "sysctl ipv4/neigh/nexbr0/proxy_delay 80",
        "addr add 10.9.0.77/32 dev nexbr0",
        "addr add 10.9.0.77/16 dev nexbr0",
        "addr add 10.9.0.1/16 dev nexbr0",
        "addr add fd00:7::1/64 dev nexbr0",
        "addr del 10.9.0.1/32 dev nexbr0",
        "addr del fd6e:6578:7573::1/128 dev nexbr0",
        "link set nexbr0 type bridge group_fwd_mask 0",
        "link set nexbr0 type bridge stp_state 1",
        "link set nexbr0 type bridge mcast_snooping 1",
        "link set nexbr0 down",
        "link set nexbr0 mtu 1400",
        "link set nexbr0 address 02:fc:0a:09:00:ff",
        "link set nexbr0 alias nexus-network@other",
    ],
)
async def test_what_others_did_to_a_bridge_is_seen_and_put_right(linux, change):
    await linux.put_bridge(bridge())
    match change.split():
        case "sysctl", name, value:
            sysctl(name, value)
        case _:
            ip(change)
    assert await linux.bridge(NAME) != bridge()
    await linux.put_bridge(bridge())
    assert await linux.bridge(NAME) == bridge()


async def test_a_link_of_another_kind_is_told_as_it_is(linux):
    ip(f"link add {NAME} type veth peer name other")
    assert (await linux.bridge(NAME)).kind == "veth"
    assert list(await linux.bridges()) == []


@pytest.mark.parametrize(
    "change",
    [
        "link set {tap} down",
        "link set {tap} nomaster",
        "link set {tap} mtu 1400",
        "link set {tap} alias somebody",
        "link set {tap} type bridge_slave isolated off",
        "link set {tap} type bridge_slave locked off",
        "bridge fdb del {mac} dev {tap} master",
        "bridge fdb add 02:00:00:00:00:99 dev {tap} master static",
        "route del 10.9.0.2/32",
        "-6 route del fd6e:6578:7573::2/128",
        "neigh del 10.9.0.2 dev nexbr0",
        "neigh replace 10.9.0.2 lladdr 02:00:00:00:00:99 dev nexbr0 nud permanent",
        "neigh replace 10.9.0.2 lladdr {mac} dev nexbr0 nud reachable",
        "neigh del fd6e:6578:7573::2 dev nexbr0",
        "link set nexbr0 down",
    ],
)
async def test_what_others_did_to_a_tap_is_seen_and_put_right(linux, change):
    await linux.put_bridge(bridge())
    other = guest(2, await attach(linux, guest(2)))
    wanted = guest(tap=await attach(linux, guest()))
    command = change.format(tap=wanted.tap, mac=wanted.mac).split()
    run(*command) if command[0] == "bridge" else run("ip", *command)
    if "nexbr0 down" in change:  # takes the routes with it
        await linux.put_bridge(bridge())
    assert await linux.tap(wanted.tap) != Tap.of(wanted)
    assert Tap.of(wanted) not in await linux.taps()
    for one in (wanted, other):
        await linux.plug_tap(one)
    assert set(await linux.taps()) == {Tap.of(wanted), Tap.of(other)}


async def test_a_tap_that_was_somebody_s_on_our_bridge_is_listed(linux):
    await linux.put_bridge(bridge())
    for name in ("tap7", "tap8"):
        ip(f"tuntap add {name} mode tap")
    ip(f"link set tap7 master {NAME}")
    (found,) = await linux.taps()
    assert (found.name, found.vm_id, found.bridge) == ("tap7", None, NAME)
    assert await linux.remove_tap(found) is True
    assert await linux.remove_tap(Tap("lo", None, None, None, 65_536, None, frozenset())) is False


async def test_owner_and_persistence(linux):
    await linux.put_bridge(bridge())
    name = await attach(linux, guest())
    details = shown(f"-details -json link show {name}")[0]["linkinfo"]["info_data"]
    assert int(details["user"]) == vm_uid(guest().vm_id)
    assert details["persist"]


async def test_a_port_of_the_bridge_has_no_ipv6_of_its_own(linux):
    await linux.put_bridge(bridge())
    name = await attach(linux, guest())
    links = {route["dev"] for route in shown("-6 -json route show table all")}
    assert NAME in links
    assert name not in links


async def test_all_of_three_hundred_taps_are_listed_as_they_are(linux):
    await linux.put_bridge(bridge())
    made = {Tap.of(one, await attach(linux, one)) for one in map(guest, range(1, 301))}
    assert set(await linux.taps()) == made
    assert set(await linux.counters()) == {tap.name for tap in made}


async def test_a_removed_tap_s_name_is_free_at_once_and_its_port_gone(linux):
    await linux.put_bridge(bridge())
    for _ in range(30):
        wanted = guest(tap="nexus7")
        assert await attach(linux, guest(), "nexus7") == "nexus7"
        assert await linux.remove_tap(Tap.of(wanted))
        assert {link["ifname"] for link in shown("-json link show")} == {"lo", NAME}


async def test_routes_by_advertisement_that_forwarding_would_lose(linux):
    ip("link add eth8 type veth peer name eth9")
    ip("link set eth8 up")
    ip("link set eth9 up")
    ip("-6 route add default via fe80::1 dev eth8 proto ra")
    assert list(await linux.has_route_by_ra()) == ["eth8"]
    sysctl("ipv6/conf/eth8/accept_ra", "2")
    assert list(await linux.has_route_by_ra()) == []


async def test_a_route_of_ours_prefers_the_gateway_as_source(linux):
    await linux.put_bridge(bridge())
    await attach(linux, guest())
    (route,) = shown("-json route show 10.9.0.2/32")
    assert (route["dev"], route["protocol"], route["prefsrc"]) == (NAME, "110", str(GATEWAY))


async def test_forwarding_that_is_on_is_not_written_again(linux):
    """To write it sets it for all links, and somebody may have turned it off for one."""
    for version in (4, 6):
        await linux.put_forwarding(version)
    for name in ("ipv4/conf/lo/forwarding", "ipv6/conf/lo/forwarding"):
        sysctl(name, "0")
    for version in (4, 6):
        await linux.put_forwarding(version)
    for name in ("ipv4/conf/lo/forwarding", "ipv6/conf/lo/forwarding"):
        assert value_of(name) == "0"


async def test_addresses_of_another_kind_are_local_too(linux):
    ip("link set lo up")
    ip("link add eth8 type veth peer name eth9")
    ip("link set eth8 up")
    ip("addr add 192.0.2.1/24 dev eth8")
    assert await linux.local(ip_address("192.0.2.1"))
    assert await linux.local(ip_address("127.0.0.1"))
    assert await linux.local(ip_address("127.9.9.9"))
    assert await linux.local(ip_address("::1"))
    assert not await linux.local(ip_address("192.0.2.2"))


async def test_a_bridge_that_is_put_again_keeps_its_guests(linux):
    """The kernel forgets all neighbours of a link whose MAC is set."""
    await linux.put_bridge(bridge())
    wanted = guest(tap=await attach(linux, guest()))
    await linux.put_bridge(bridge(mtu=1400, network="other"))
    assert await linux.tap(wanted.tap) == Tap.of(wanted)


async def test_replacing_a_guest_changes_its_mark(linux):
    await linux.put_bridge(bridge())
    was = guest(tap=await attach(linux, guest()))
    now = replace(was, vm_id=vm(99))
    await linux.plug_tap(now)
    assert await linux.give_tap(now)
    assert await linux.tap(was.tap) == Tap.of(now)
