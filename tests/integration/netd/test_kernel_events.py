"""What the kernel port tells of changes: others' in our things, and nothing else."""

import asyncio
from pathlib import Path

import pytest
from kernel_values import NAME, SUBNETS, attach, bridge, contents, guest

from nexus_netd.kernel import Changed, Matter, Tap
from nexus_netd.linux.port import Linux

SECONDS = 5
LAST = Changed(Matter.FORWARDING)


@pytest.fixture
async def linux(namespace):
    linux = await Linux.open()
    yield linux
    await linux.close()


async def run(command):
    process = await asyncio.create_subprocess_exec(*command.split())
    assert await process.wait() == 0


async def until(stream, wanted):
    """Return what is told up to `wanted`."""
    told = []
    async with asyncio.timeout(SECONDS):
        while wanted not in told:
            told.append(await anext(stream))
    return told


def sysctl(name, value):
    Path("/proc/sys/net", name).write_text(value)


def flip():
    """Change what is always told, so that all that was told before is known."""
    path = Path("/proc/sys/net/ipv4/ip_forward")
    path.write_text("0" if path.read_text().strip() == "1" else "1")


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        ("ip link set {tap} down", Changed(Matter.LINK, "{tap}")),
        ("ip link set {tap} nomaster", Changed(Matter.LINK, "{tap}")),
        ("ip link set {tap} alias somebody", Changed(Matter.LINK, "{tap}")),
        ("ip link del {tap}", Changed(Matter.LINK, "{tap}")),
        ("ip link set {tap} type bridge_slave isolated off", Changed(Matter.LINK, "{tap}")),
        ("bridge fdb del 02:fc:0a:09:00:02 dev {tap} master", Changed(Matter.LINK, "{tap}")),
        ("ip link set nexbr0 down", Changed(Matter.LINK, NAME)),
        ("ip link del nexbr0", Changed(Matter.LINK, NAME)),
        ("ip link set nexbr0 mtu 1400", Changed(Matter.LINK, NAME)),
        ("ip addr del 10.9.0.1/32 dev nexbr0", Changed(Matter.LINK, NAME)),
        ("ip addr add fd00:7::1/64 dev nexbr0 nodad", Changed(Matter.LINK, NAME)),
        ("ip route del 10.9.0.2/32", Changed(Matter.ROUTES, "10.9.0.2/32")),
        (
            "ip -6 route del fd6e:6578:7573::2",
            Changed(Matter.ROUTES, "fd6e:6578:7573::2/128"),
        ),
        ("ip route del unreachable 10.9.0.0/16", Changed(Matter.ROUTES, "10.9.0.0/16")),
        ("ip neigh del 10.9.0.2 dev nexbr0", Changed(Matter.NEIGHBOURS, "10.9.0.2")),
        (
            "ip neigh replace fd6e:6578:7573::2 lladdr 02:00:00:00:00:99 dev nexbr0",
            Changed(Matter.NEIGHBOURS, "fd6e:6578:7573::2"),
        ),
        ("nft flush ruleset", Changed(Matter.RULES)),
        ("nft delete table inet nexus", Changed(Matter.RULES)),
        ("nft flush chain bridge nexus guard", Changed(Matter.RULES)),
        ("nft delete element inet nexus bridges {{ nexbr0 }}", Changed(Matter.RULES)),
    ],
)
async def test_what_others_change_is_told(linux, command, changed):
    await linux.put_bridge(bridge())
    await linux.put_subnets(SUBNETS)
    name = await attach(linux, guest())
    await linux.put_contents(contents())
    stream = linux.events()
    await run(command.format(tap=name))
    wanted = Changed(changed.matter, changed.name.format(tap=name))
    assert wanted in await until(stream, wanted)


async def test_forwarding_and_settings_of_a_bridge_are_told(linux):
    await linux.put_bridge(bridge())
    stream = linux.events()
    flip()
    await until(stream, Changed(Matter.FORWARDING))
    sysctl("ipv4/conf/nexbr0/proxy_arp", "0")
    await until(stream, Changed(Matter.LINK, NAME))
    sysctl("ipv6/conf/all/forwarding", "1")
    await until(stream, Changed(Matter.FORWARDING))


async def test_what_does_not_concern_us_is_not_told(linux):
    await linux.put_bridge(bridge())
    stream = linux.events()
    await run("ip link add eth8 type veth peer name eth9")
    await run("ip link set eth8 up")
    await run("ip addr add 192.0.2.1/24 dev eth8")
    await run("ip route add 198.51.100.0/24 dev eth8")
    await run("ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev eth8")
    await run("nft add table inet somebody")
    await run("nft add table ip nexus")
    await run("ip link del eth8")
    flip()
    # The kernel tells of the bridge's carrier when it comes to it.
    assert set(await until(stream, LAST)) <= {LAST, Changed(Matter.LINK, NAME)}


async def test_our_own_changes_are_not_told_where_the_kernel_says_whose_they_are(linux):
    """It does not of links, and of neighbours that are removed."""
    await linux.put_bridge(bridge())
    stream = linux.events()
    await linux.put_subnets(SUBNETS)
    name = await attach(linux, guest())
    await linux.put_contents(contents())
    await linux.remove_tap(Tap.of(guest(), name))
    await linux.remove_tables()
    flip()
    told = await until(stream, LAST)
    expected = {LAST, Changed(Matter.LINK, name), Changed(Matter.LINK, NAME)}
    removed = {Changed(Matter.NEIGHBOURS, str(address)) for address in guest().addresses}
    assert set(told) <= expected | removed


async def test_a_flood_of_changes_is_told_as_everything_and_is_bounded(linux):
    """More than is kept for one who does not read: it must look at all."""
    await linux.put_bridge(bridge())
    stream = linux.events()
    lines = "\n".join(
        f"route add 10.{64 + number // 65_536}.{number // 256 % 256}.{number % 256}/32 "
        f"dev {NAME} proto 110"
        for number in range(6_000)
    )
    process = await asyncio.create_subprocess_exec(
        "ip", "-batch", "-", stdin=asyncio.subprocess.PIPE
    )
    await process.communicate(lines.encode())
    assert process.returncode == 0
    flip()
    told = await until(stream, LAST)
    assert Changed(Matter.EVERYTHING) in told
    assert len(told) <= 4_098


async def test_streams_end_with_the_port(namespace):
    linux = await Linux.open()
    stream = linux.events()
    waiting = asyncio.ensure_future(anext(stream))
    await linux.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
