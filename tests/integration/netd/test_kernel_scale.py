"""What a look at many ports costs; the figures are for the report."""

import statistics
import time

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


async def best(look):
    """Return what a look gives, and the shortest of a few times in milliseconds."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        found = await look()
        times.append(time.perf_counter() - began)
    return found, 1_000 * min(times)


async def test_a_look_at_four_thousand_ports(linux, record_property):
    """Bounds are several times what it takes, for machines that do other things, too."""
    names = [NAME, *(f"{NAME}-{number}" for number in range(1, PORTS // PER_BRIDGE))]
    for name in names:
        await linux.put_bridge(bridge(name))
    await linux.put_subnets(SUBNETS)
    made = set()
    for number in range(PORTS):
        one = guest(number + 1, on=names[number // PER_BRIDGE])
        made.add(Tap.of(one, await attach(linux, one)))
    taps, listed = await best(linux.taps)
    assert set(taps) == made
    counters, counted = await best(linux.counters)
    assert set(counters) == {tap.name for tap in made}
    bridges, seen = await best(linux.bridges)
    assert len(bridges) == len(names)
    assert {frozenset({GATEWAY, GATEWAY6})} == {one.addresses for one in bridges}
    removed = []
    for tap in list(made)[:100]:
        began = time.perf_counter()
        assert await linux.remove_tap(tap)
        removed.append(1_000 * (time.perf_counter() - began))
    for name, value in (
        ("taps", listed),
        ("counters", counted),
        ("bridges", seen),
        ("remove", statistics.median(removed)),
    ):
        record_property(f"{name}_ms", round(value, 2))
        print(f"{name}: {value:.1f} ms")
    assert listed < 600
    assert counted < 200
    assert seen < 100
    assert statistics.median(removed) < 50
