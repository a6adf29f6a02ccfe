import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from netd_world import ULA, attach, stored

from nexus_netd.kernel import Flow, Tap
from nexus_netd.model import EgressRule, Limits, Link, Mode, Policy
from nexus_netd.operations.stale import Stale
from nexus_rpc.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from nexus_rpc.ids import new_vm_id, vm_uid

RULES = Policy(Mode.RULES, (EgressRule(domain="pypi.org"),))


async def test_a_port_is_a_lease_a_tap_and_rules(netd, kernel, agree):
    vm = new_vm_id()
    guest = await attach(netd, vm)
    assert (guest.ipv4, guest.tap, guest.vm_id) == (IPv4Address("172.16.0.2"), "nexus0", vm)
    assert guest.mac == "02:fc:ac:10:00:02"
    assert kernel.present["nexus0"].owner == vm_uid(vm)
    assert kernel.routed == {guest.ipv4: ("nexbr0", guest.mac)}
    assert await attach(netd, vm) == guest
    await agree(netd)


async def test_with_ipv6_both_addresses_are_routed(start, kernel, agree):
    netd = await start(ipv6=ULA)
    guest = await attach(netd)
    assert guest.ipv6 == ULA[2]
    assert kernel.routed.keys() == {guest.ipv4, guest.ipv6}
    assert kernel.versions == {4, 6}
    await agree(netd)


async def test_detach_takes_all_of_it_and_may_be_repeated(netd, kernel, agree):
    vm = new_vm_id()
    await attach(netd, vm, policy=RULES)
    assert await netd.detach(vm) is True
    assert (kernel.present, kernel.routed, kernel.chains) == ({}, {}, set())
    await agree(netd)
    assert await netd.detach(vm) is False
    with pytest.raises(NotFound) as caught:
        netd.state.port(vm)
    assert caught.value.reason == "PORT_NOT_FOUND"


async def test_those_with_a_link_to_who_is_gone_are_told(netd):
    ones = [await attach(netd) for _ in range(3)]
    source, gone, _ = (one.vm_id for one in ones)
    await netd.link(Link(source, gone))
    await netd.link(Link(gone, source))
    with netd.state.feed.watch() as watcher:
        await netd.detach(gone)
        told = [await anext(watcher) for _ in range(2)]
        netd.state.feed.close()
        assert [one async for one in watcher] == []
    assert [(one.what, one.vm_id) for one in told] == [("detached", gone), ("changed", source)]
    assert not netd.view().links_from(source)


async def test_nobody_gets_an_address_with_connections_of_another(start, kernel):
    netd = await start(subnet="10.0.0.0/30")
    guest = await attach(netd)
    mine = Flow(guest.ipv4, IPv4Address("192.0.2.1"), 6, 443, b"1")
    others = Flow(IPv4Address("192.0.2.7"), IPv4Address("192.0.2.1"), 6, 443, b"2")
    kernel.tracked = [mine, others]
    await netd.detach(guest.vm_id)
    assert (await attach(netd)).ipv4 == guest.ipv4
    assert kernel.tracked == [others]


async def test_connections_of_who_is_gone_are_forgotten_behind_a_detach(netd, kernel):
    guest = await attach(netd)
    kernel.tracked = [Flow(guest.ipv4, IPv4Address("192.0.2.1"), 6, 443, b"1")]
    kernel.calls.clear()
    kernel.fail_at = 4  # what was refused is tried again
    stale = netd.state.stale = Stale(kernel, netd.view(), gather=0.0)
    task = asyncio.create_task(stale.run())
    await netd.detach(guest.vm_id)
    async with asyncio.timeout(10):
        while kernel.tracked:  # noqa: ASYNC110  # the kernel has nothing to wait for
            await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_connections_that_a_killed_netd_left_are_found_at_start(start, kernel):
    netd = await start()
    guest = await attach(netd)
    kept = Flow(guest.ipv4, IPv4Address("192.0.2.1"), 6, 443, b"1")
    gone = Flow(IPv4Address("172.16.0.9"), IPv4Address("192.0.2.1"), 6, 443, b"2")
    host = Flow(IPv4Address("172.16.0.1"), guest.ipv4, 6, 22, b"3")
    kernel.tracked = [kept, gone, host]
    netd = await start()
    await netd.start()
    await netd.state.stale.forget([gone.source, kept.source, host.source])
    assert kernel.tracked == [kept, host]


@pytest.mark.parametrize(
    "harm",
    [
        lambda k: k._drop("nexus0"),
        lambda k: k.routed.clear(),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], up=False)),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], isolated=False)),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], vm_id=None)),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], bridge=None)),
    ],
)
async def test_attach_again_repairs_the_tap_under_its_name(netd, kernel, agree, harm):
    vm = new_vm_id()
    guest = await attach(netd, vm)
    harm(kernel)
    assert await attach(netd, vm) == guest
    await agree(netd)


async def test_a_repeat_that_asks_for_something_else_is_refused(netd, kernel, agree):
    vm = new_vm_id()
    await attach(netd, vm, policy=RULES)
    for asked in ({"network": "blue"}, {"address": IPv4Address("172.16.0.3")}):
        with pytest.raises(AlreadyExists) as caught:
            await attach(netd, vm, **asked)
        assert caught.value.reason == "PORT_DIFFERS"
    same = await attach(netd, vm, address=IPv4Address("172.16.0.2"), policy=Policy())
    assert same.policy == RULES  # of a port that exists it is left alone
    await agree(netd)


async def test_an_address_that_is_asked_for(start, agree):
    netd = await start(subnet="10.0.0.0/29")
    first = await attach(netd, address=IPv4Address("10.0.0.4"))
    assert str(first.ipv4) == "10.0.0.4"
    with pytest.raises(AlreadyExists) as caught:
        await attach(netd, address=IPv4Address("10.0.0.4"))
    assert caught.value.reason == "ADDRESS_TAKEN"
    for wrong in ("10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.0.8"):
        with pytest.raises(InvalidArgument) as caught:
            await attach(netd, address=IPv4Address(wrong))
        assert caught.value.metadata == {"field": "ipv4"}
    others = [str((await attach(netd)).ipv4) for _ in range(4)]
    assert others == ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"]
    with pytest.raises(ResourceExhausted):
        await attach(netd)
    await agree(netd)


async def test_an_unknown_network_is_named_with_those_there_are(netd):
    with pytest.raises(NotFound, match=r"'blue'.*default") as caught:
        await attach(netd, network="blue")
    assert caught.value.reason == "NETWORK_NOT_FOUND"


async def test_detach_finds_a_tap_whose_mark_was_wiped_off(netd, kernel):
    vm = new_vm_id()
    await attach(netd, vm)
    kernel.present["nexus0"] = replace(kernel.present["nexus0"], vm_id=None)
    assert await netd.detach(vm)
    assert not kernel.present


async def test_detach_of_a_port_whose_tap_somebody_removed(netd, kernel, agree):
    vm = new_vm_id()
    await attach(netd, vm)
    kernel._drop("nexus0")
    assert await netd.detach(vm)
    assert not kernel.routed
    await agree(netd)


async def test_a_name_that_the_kernel_gives_out_again_stays_with_its_port(netd, kernel, agree):
    first, second = new_vm_id(), new_vm_id()
    guest = await attach(netd, first)
    kernel._drop("nexus0")
    assert (await attach(netd, second)).tap == "nexus1"
    assert netd.view().guests[first] == guest
    await agree(netd)


def foreign(name):
    return Tap(name, None, None, "virbr0", 1500, None, frozenset())


async def test_a_name_that_has_become_another_s_is_given_up(netd, kernel, caplog):
    first, second = new_vm_id(), new_vm_id()
    await attach(netd, first)
    await attach(netd, second)
    kernel._drop("nexus0")
    kernel._drop("nexus1")
    kernel.present["nexus0"] = foreign("nexus0")
    assert any("nexus0" in line for line in await netd.ensure())
    # The second kept its name: only those whose names are taken get new ones, and last.
    assert [guest.tap for guest in netd.view().guests.values()] == ["nexus2", "nexus1"]
    assert kernel.present["nexus0"] == foreign("nexus0")
    assert (await attach(netd, first)).tap == "nexus2"
    assert kernel.rules == netd.state.wants.everything()


async def test_attach_alone_also_gives_a_taken_name_up(netd, kernel):
    vm = new_vm_id()
    await attach(netd, vm)
    kernel._drop("nexus0")
    kernel.present["nexus0"] = foreign("nexus0")
    assert (await attach(netd, vm)).tap == "nexus1"


async def test_ensure_removes_taps_that_no_port_has(netd, kernel):
    await attach(netd)
    kernel.present["old"] = replace(foreign("old"), vm_id=new_vm_id(), bridge=None)
    kernel.present["nexus7"] = replace(foreign("nexus7"), bridge="nexbr0")
    kernel.present["vnet0"] = foreign("vnet0")
    done = await netd.ensure()
    assert len([line for line in done if "removed" in line]) == 2
    assert kernel.present.keys() == {"nexus0", "vnet0"}


async def test_a_full_subnet_refuses_and_changes_nothing(start, agree):
    netd = await start(subnet="10.0.0.0/29")
    guests = [await attach(netd) for _ in range(5)]
    before = stored(netd)
    with pytest.raises(ResourceExhausted, match="all 5 addresses") as caught:
        await attach(netd)
    assert caught.value.reason == "SUBNET_FULL"
    assert stored(netd) == before
    await agree(netd)
    await netd.detach(guests[2].vm_id)
    assert (await attach(netd)).ipv4 == guests[2].ipv4


async def test_a_bridge_that_is_full_gets_a_second(netd, kernel, agree, monkeypatch):
    monkeypatch.setattr("nexus_netd.records.leases.PORTS_OF_A_BRIDGE", 2)
    guests = [await attach(netd) for _ in range(5)]
    assert [one.bridge for one in guests] == [
        "nexbr0",
        "nexbr0",
        "nexbr0-1",
        "nexbr0-1",
        "nexbr0-2",
    ]
    await agree(netd)
    await netd.detach(guests[0].vm_id)
    assert (await attach(netd)).bridge == "nexbr0"
    for guest in guests[2:]:
        await netd.detach(guest.vm_id)
    await agree(netd)


async def test_a_bridge_without_ports_goes_at_the_next_start(start, kernel, agree, monkeypatch):
    monkeypatch.setattr("nexus_netd.records.leases.PORTS_OF_A_BRIDGE", 1)
    netd = await start()
    guests = [await attach(netd) for _ in range(2)]
    await netd.detach(guests[1].vm_id)
    netd = await start()
    await netd.start()
    assert kernel.links.keys() == {"nexbr0"}
    await agree(netd)


async def test_an_attach_asks_the_kernel_three_times_and_commits_once(netd, kernel):
    await attach(netd)
    kernel.calls.clear()
    await attach(netd, policy=RULES, limits=Limits(egress_bytes=1_000_000))
    assert kernel.calls == ["new_tap", "commit", "change", "keep"]


OPERATIONS = ["attach", "attach again", "detach", "ensure", "cleanup"]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_failure_at_any_call_changes_nothing_or_can_be_carried_on(
    start, kernel, agree, operation
):
    failures = 0
    for number in range(1, 100):
        netd = await start()
        old, new = new_vm_id(), new_vm_id()
        await attach(netd, old, policy=RULES)
        before = stored(netd)
        if not await kernel.fails_at(number, _do(netd, operation, old, new)):
            break
        failures += 1
        if operation in ("attach", "detach"):
            assert stored(netd) == before
            await agree(netd)
        await _do(netd, operation, old, new)
        if operation != "cleanup":
            await agree(netd)
        await netd.cleanup(force=True)
    assert failures >= (1 if operation == "attach again" else 2)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_killed_at_any_call_the_next_start_finds_its_way(start, kernel, agree, operation):
    kills = 0
    for number in range(1, 100):
        netd = await start()
        old, new = new_vm_id(), new_vm_id()
        await attach(netd, old, policy=RULES)
        if operation == "attach again":
            kernel._drop(netd.view().guests[old].tap)
        if not await kernel.kills_at(number, _do(netd, operation, old, new)):
            break
        kills += 1
        netd = await start()
        await netd.start()
        await agree(netd)
        await _do(netd, operation, old, new)
        if operation != "cleanup":
            await agree(netd)
        await netd.cleanup(force=True)
        assert kernel.empty
    assert kills >= 2


async def _do(netd, operation, old, new):
    match operation:
        case "attach":
            await attach(netd, new)
        case "attach again":
            await attach(netd, old)
        case "detach":
            await netd.detach(old)
        case "ensure":
            await netd.ensure()
        case "cleanup":
            await netd.cleanup(force=True)


async def test_a_caller_that_goes_away_leaves_nothing_half_done(netd, agree):
    await netd.ensure()
    for turns in range(20):
        vm = new_vm_id()
        task = asyncio.create_task(attach(netd, vm))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await netd.ensure()  # in its turn: after what was begun
        await agree(netd)


async def test_many_callers_at_once(netd, agree):
    chance = random.Random(20260224)
    vms = [new_vm_id() for _ in range(12)]
    for _ in range(5):
        calls = [
            attach(netd, chance.choice(vms))
            if chance.random() < 0.5
            else netd.detach(chance.choice(vms))
            for _ in range(40)
        ]
        await asyncio.gather(*calls)
        await agree(netd)
