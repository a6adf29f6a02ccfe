"""Looks at as many ports as a host may have; `make bench-net` says what they cost."""

import pytest
from kernel_values import GATEWAY, GATEWAY6, NAME, SUBNETS, attach, bridge, guest

from nexus_netd.kernel import Tap
from nexus_netd.linux.port import Linux

PORTS, PER_BRIDGE = 4_000, 250


@pytest.fixture
async def linux(namespace):
    linux = await Linux.open()
    yield linux
    await linux.close()


async def test_a_look_at_four_thousand_ports(linux):
    names = [NAME, *(f"{NAME}-{number}" for number in range(1, PORTS // PER_BRIDGE))]
    for name in names:
        await linux.put_bridge(bridge(name))
    await linux.put_subnets(SUBNETS)
    made = set()
    for number in range(PORTS):
        one = guest(number + 1, on=names[number // PER_BRIDGE])
        made.add(Tap.of(one, await attach(linux, one)))
    assert set(await linux.taps()) == made
    assert set(await linux.counters()) == {tap.name for tap in made}
    bridges = await linux.bridges()
    assert len(bridges) == len(names)
    assert {frozenset({GATEWAY, GATEWAY6})} == {one.addresses for one in bridges}
    gone = set(list(made)[:100])
    for tap in gone:
        assert await linux.remove_tap(tap)
    assert set(await linux.taps()) == made - gone
