import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Interface

import pytest
from fake_kernel import Killed

from nexus_netd.kernel import KernelError, Tap
from nexus_rpc.errors import NotFound, ResourceExhausted
from nexus_rpc.ids import new_vm_id


async def test_a_port_is_a_lease_and_a_tap(netd, kernel, agree):
    vm = new_vm_id()
    lease = await netd.attach(vm)
    assert (lease.host, lease.tap, lease.vm_id) == (2, "nexus0", vm)
    assert kernel.owners["nexus0"].owner == 4242
    assert kernel.pins == {IPv4Interface("172.16.0.2/12"): "02:fc:ac:10:00:02"}
    assert await netd.attach(vm) == await netd.get(vm) == lease
    await agree(netd)


async def test_detach_takes_all_of_it_and_may_be_repeated(netd, kernel):
    vm = new_vm_id()
    await netd.attach(vm)
    assert await netd.detach(vm) is True
    assert (kernel.present, kernel.pins) == ({}, {})
    assert await netd.detach(vm) is False
    with pytest.raises(NotFound) as caught:
        await netd.get(vm)
    assert caught.value.reason == "PORT_NOT_FOUND"


@pytest.mark.parametrize(
    "harm",
    [
        lambda k: k._drop("nexus0"),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], up=False)),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], isolated=False)),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], vm_id=None)),
        lambda k: k.present.update(nexus0=replace(k.present["nexus0"], bridge=None)),
    ],
)
async def test_attach_again_repairs_the_tap_under_its_name(netd, kernel, agree, harm):
    vm = new_vm_id()
    lease = await netd.attach(vm)
    harm(kernel)
    assert await netd.attach(vm) == lease
    await agree(netd)


async def test_detach_finds_a_tap_whose_mark_was_wiped_off(netd, kernel):
    vm = new_vm_id()
    await netd.attach(vm)
    kernel.present["nexus0"] = replace(kernel.present["nexus0"], vm_id=None)
    assert await netd.detach(vm)
    assert not kernel.present


async def test_a_name_that_the_kernel_gives_out_again_stays_with_its_port(netd, kernel, agree):
    first, second = new_vm_id(), new_vm_id()
    lease = await netd.attach(first)
    kernel._drop("nexus0")
    assert (await netd.attach(second)).tap == "nexus1"
    assert await netd.get(first) == lease
    await agree(netd)


async def test_a_name_that_has_become_another_s_is_given_up(netd, kernel, caplog):
    first, second = new_vm_id(), new_vm_id()
    await netd.attach(first)
    await netd.attach(second)
    kernel._drop("nexus0")
    kernel._drop("nexus1")
    foreign = kernel.present["nexus0"] = Tap("nexus0", None, "virbr0", 1500)
    assert any("nexus0" in line for line in await netd.ensure())
    # The second kept its name: only those whose names are taken get new ones, and last.
    assert [lease.tap for lease in await netd.all()] == ["nexus2", "nexus1"]
    assert kernel.present["nexus0"] == foreign
    assert (await netd.attach(first)).tap == "nexus2"


async def test_attach_alone_also_gives_a_taken_name_up(netd, kernel):
    vm = new_vm_id()
    await netd.attach(vm)
    kernel._drop("nexus0")
    kernel.present["nexus0"] = Tap("nexus0", None, "virbr0", 1500)
    assert (await netd.attach(vm)).tap == "nexus1"


async def test_ensure_removes_taps_that_no_port_has(netd, kernel, agree):
    await netd.attach(new_vm_id())
    kernel.present["old"] = Tap("old", new_vm_id(), None, 1500)
    kernel.present["nexus7"] = Tap("nexus7", None, "nexbr0", 1500)
    kernel.present["vnet0"] = Tap("vnet0", None, "virbr0", 1500)
    done = await netd.ensure()
    assert len([line for line in done if "removed" in line]) == 2
    assert kernel.present.keys() == {"nexus0", "vnet0"}


async def test_a_full_subnet_refuses_and_changes_nothing(start, kernel, agree):
    netd = await start("10.0.0.0/29")
    vms = [new_vm_id() for _ in range(5)]
    for vm in vms:
        await netd.attach(vm)
    with pytest.raises(ResourceExhausted, match="all 5 addresses") as caught:
        await netd.attach(new_vm_id())
    assert caught.value.reason == "SUBNET_FULL"
    await agree(netd)
    await netd.attach(vms[2])
    await netd.detach(vms[2])
    assert (await netd.attach(new_vm_id())).host == 4


@pytest.mark.parametrize("operation", ["attach", "attach again", "detach", "ensure", "cleanup"])
async def test_a_failure_at_any_call_changes_nothing_or_can_be_carried_on(
    start, kernel, agree, operation
):
    failures = 0
    for number in range(1, 100):
        netd = await start()
        old, new = new_vm_id(), new_vm_id()
        await netd.attach(old)
        kernel.calls.clear()
        kernel.fail_at = number
        try:
            await _do(netd, operation, old, new)
        except KernelError:
            failures += 1
        else:
            kernel.fail_at = 0
            break
        kernel.fail_at = 0
        if operation == "attach":
            assert [lease.vm_id for lease in await netd.all()] == [old]
            await agree(netd)
        await _do(netd, operation, old, new)
        await agree(netd)
        await netd.cleanup()
    assert failures >= 2


@pytest.mark.parametrize("operation", ["attach", "attach again", "detach", "ensure", "cleanup"])
async def test_killed_at_any_call_the_next_start_finds_its_way(start, kernel, agree, operation):
    kills = 0
    for number in range(1, 100):
        netd = await start()
        old, new = new_vm_id(), new_vm_id()
        await netd.attach(old)
        if operation == "attach again":
            kernel._drop((await netd.get(old)).tap)
        kernel.calls.clear()
        kernel.kill_at = number
        try:
            await _do(netd, operation, old, new)
        except Killed:
            kills += 1
        else:
            kernel.kill_at = 0
            break
        kernel.die_with_process()
        netd = await start()
        await netd.reconcile()
        await agree(netd)
        await _do(netd, operation, old, new)
        await agree(netd)
        await netd.cleanup()
        assert (kernel.present, kernel.links, kernel.pins) == ({}, {}, {})
    assert kills >= 2


async def _do(netd, operation, old, new):
    match operation:
        case "attach":
            await netd.attach(new)
        case "attach again":
            await netd.attach(old)
        case "detach":
            await netd.detach(old)
        case "ensure":
            await netd.ensure()
        case "cleanup":
            await netd.cleanup()


async def test_a_caller_that_goes_away_leaves_nothing_half_done(netd, kernel, agree):
    await netd.ensure()
    for turns in range(12):
        vm = new_vm_id()
        task = asyncio.create_task(netd.attach(vm))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await agree(netd)


async def test_many_callers_at_once(netd, kernel, agree):
    chance = random.Random(20260224)
    vms = [new_vm_id() for _ in range(12)]
    for _ in range(5):
        calls = [chance.choice((netd.attach, netd.detach))(chance.choice(vms)) for _ in range(40)]
        await asyncio.gather(*calls)
        await agree(netd)
    hosts = [lease.host for lease in await netd.all()]
    assert len(hosts) == len(set(hosts))
