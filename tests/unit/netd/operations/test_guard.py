import asyncio
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
from netd_world import attach

from nexus_netd.kernel import Changed, KernelError, Matter
from nexus_netd.operations.guard import FIGHT, Guard


@pytest.fixture
async def guarded(netd):
    """netd with its guard, which looks without delay."""
    await netd.ensure()
    guard = Guard(netd.state, netd.repair, netd.turn, collect=0.0, slow=0.0)
    task = asyncio.create_task(guard.run())
    yield netd
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is nothing to be told by
            await asyncio.sleep(0)


def tell(kernel, matter, name=""):
    kernel.changed.put_nowait(Changed(matter, name))


async def test_rules_that_a_firewall_reload_took_come_back(guarded, kernel, agree):
    await attach(guarded)
    kernel.flush()
    tell(kernel, Matter.RULES)
    await until(lambda: kernel.has_tables)
    await agree(guarded)


async def test_a_bridge_that_was_removed_comes_back_with_its_ports(guarded, kernel, agree):
    guest = await attach(guarded)
    await kernel.remove_bridge("nexbr0")
    tell(kernel, Matter.LINK, "nexbr0")
    await until(lambda: guest.ipv4 in kernel.routed)
    await agree(guarded)


async def test_a_tap_that_was_removed_or_unplugged_comes_back(guarded, kernel, agree):
    guest = await attach(guarded)
    for harm in (
        lambda: kernel._drop("nexus0"),
        lambda: kernel.present.update(nexus0=replace(kernel.present["nexus0"], bridge=None)),
    ):
        harm()
        tell(kernel, Matter.LINK, guest.tap)
        await until(lambda: guest.tap in kernel.kept and kernel.present[guest.tap].bridge)
        await agree(guarded)


@pytest.mark.parametrize("matter", [Matter.ROUTES, Matter.NEIGHBOURS])
async def test_a_route_or_neighbour_that_was_removed_comes_back(guarded, kernel, agree, matter):
    guest = await attach(guarded)
    kernel.routed.clear()
    name = f"{guest.ipv4}/32" if matter is Matter.ROUTES else str(guest.ipv4)
    tell(kernel, matter, name)
    await until(lambda: guest.ipv4 in kernel.routed)
    await agree(guarded)


async def test_a_subnet_s_route_and_forwarding_come_back(guarded, kernel, agree):
    kernel.unreachable, kernel.versions = frozenset(), set()
    tell(kernel, Matter.ROUTES, "172.16.0.0/12")
    tell(kernel, Matter.FORWARDING)
    await until(lambda: kernel.unreachable and kernel.versions)
    await agree(guarded)


async def test_what_has_our_mark_and_no_port_goes(guarded, kernel, agree):
    guest = await attach(guarded)
    kernel.present["nexus9"] = replace(kernel.present[guest.tap], name="nexus9")
    kernel.present["eth0"] = replace(kernel.present[guest.tap], name="eth0", vm_id=None)
    tell(kernel, Matter.LINK, "nexus9")
    tell(kernel, Matter.LINK, "eth0")
    tell(kernel, Matter.LINK, "lo")
    await until(lambda: kernel.present.keys() == {guest.tap})
    await agree(guarded)


async def test_a_look_looks_at_nothing_else(guarded, kernel):
    guest = await attach(guarded)
    kernel.calls.clear()
    tell(kernel, Matter.LINK, guest.tap)
    tell(kernel, Matter.NEIGHBOURS, str(guest.ipv4))
    await until(lambda: kernel.calls)
    assert kernel.calls == ["tap"]


async def test_when_messages_were_lost_everything_is_looked_at(guarded, kernel, agree):
    await attach(guarded)
    kernel.unreachable = frozenset()
    kernel._drop("nexus0")
    tell(kernel, Matter.EVERYTHING)
    await until(lambda: kernel.present)
    await agree(guarded)


async def test_a_kernel_that_does_not_tell_is_asked_again(netd, kernel, agree, caplog):
    await netd.ensure()
    real, times = kernel.events, 0

    async def events():
        nonlocal times
        times += 1
        if times < 3:
            raise KernelError(1, "no")
        async for changed in real():
            yield changed

    kernel.events = events
    kernel.flush()
    guard = Guard(netd.state, netd.repair, netd.turn, collect=0.0, slow=0.0)
    task = asyncio.create_task(guard.run())
    await until(lambda: kernel.has_tables)  # what came meanwhile is looked at
    await until(lambda: times == 3)
    assert caplog.text.count("changes are not heard, tried again: no") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_cleaned_up_stays_away(guarded, kernel):
    await guarded.cleanup(force=False)
    seen = len(kernel.calls)
    for matter in Matter:
        tell(kernel, matter, "nexbr0")
    for _ in range(50):
        await asyncio.sleep(0)
    assert (kernel.links, kernel.has_tables, len(kernel.calls)) == ({}, False, seen)


async def test_a_repair_that_fails_is_logged_once_and_tried_again(guarded, kernel, caplog):
    kernel.flush()
    kernel.calls.clear()
    kernel.fail_at = 1
    tell(kernel, Matter.RULES)
    await until(lambda: kernel.has_tables)
    assert caplog.text.count("not repaired") == 1


async def test_an_operation_that_could_not_be_taken_back_is_looked_after(guarded, kernel, agree):
    await attach(guarded)
    kernel.unreachable = frozenset({IPv4Network("10.0.0.0/8")})
    guarded.state.suspect()
    await until(lambda: IPv4Network("10.0.0.0/8") not in kernel.unreachable)
    await agree(guarded)


async def test_repairs_are_told(guarded, kernel):
    guest = await attach(guarded)
    with guarded.state.feed.watch(guest.vm_id) as told:
        kernel._drop(guest.tap)
        tell(kernel, Matter.LINK, guest.tap)
        async with asyncio.timeout(10):
            happening = await anext(told)
    assert (happening.what, happening.network) == ("repaired", "default")
    assert happening.details == "TAP nexus0 made again"


async def test_somebody_who_keeps_undoing_it_is_told_of_once_and_waited_for(netd, kernel, caplog):
    await netd.ensure()
    guard = Guard(netd.state, netd.repair, netd.turn, collect=0.0, slow=3600.0)
    task = asyncio.create_task(guard.run())
    for repairs in range(1, FIGHT + 2):
        kernel.flush()
        tell(kernel, Matter.RULES)
        await until(lambda: kernel.has_tables)
        await until(lambda n=repairs: caplog.text.count("tables nexus written") == n + 1)
        for _ in range(5):
            await asyncio.sleep(0)
        assert caplog.text.count("keeps undoing rules") == (repairs > FIGHT)
    kernel.flush()
    tell(kernel, Matter.RULES)
    for _ in range(50):
        await asyncio.sleep(0)
    assert not kernel.has_tables
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
