import asyncio
from ipaddress import IPv4Interface, IPv4Network

import pytest

from nexus_netd.kernel import Bridge, KernelError
from nexus_rpc.errors import FailedPrecondition
from nexus_rpc.ids import new_vm_id

MADE = [
    "bridge nexbr0 made",
    "address 172.16.0.1/12 set",
    "IPv4 forwarding turned on",
    "table inet nexus written",
]


async def test_ensure_makes_everything_once(netd, kernel):
    assert await netd.ensure() == MADE
    assert kernel.links["nexbr0"] == Bridge("nexbr0", "02:fc:ac:10:00:01", 1500)
    kernel.calls.clear()
    assert await netd.ensure() == []
    assert not [call for call in kernel.calls if call.startswith(("put", "remove", "new"))]


@pytest.mark.parametrize(
    ("harm", "repair"),
    [
        (lambda k: k.links.clear(), "bridge nexbr0 made"),
        (lambda k: k.links.update(nexbr0=Bridge("nexbr0", "", 9000, up=False)), "bridge nexbr0 re"),
        (lambda k: k.bridge_addresses.clear(), "address"),
        (lambda k: k.bridge_addresses.append(IPv4Interface("10.0.0.1/8")), "address"),
        (lambda k: setattr(k, "is_forwarding", False), "IPv4 forwarding"),
        (lambda k: setattr(k, "rules", None), "table inet nexus"),
    ],
)
async def test_ensure_repairs_what_is_broken(netd, kernel, harm, repair):
    await netd.ensure()
    harm(kernel)
    (done,) = [line for line in await netd.ensure() if line.startswith(repair)]
    assert done
    assert await netd.ensure() == []


async def test_attach_makes_the_network_first_and_looks_again_only_after_a_change(netd, kernel):
    await netd.attach(new_vm_id())
    assert kernel.rules is not None
    kernel.calls.clear()
    await netd.attach(new_vm_id())
    assert kernel.calls == ["stamp", "new_tap", "keep"]
    kernel.rules, kernel.generation = None, kernel.generation + 1
    await netd.attach(new_vm_id())
    assert kernel.rules is not None


async def test_a_bridge_that_was_removed_comes_back_with_all_ports(netd, kernel, agree):
    for _ in range(3):
        await netd.attach(new_vm_id())
    await kernel.remove_bridge("nexbr0")
    await netd.attach(new_vm_id())
    await agree(netd)


async def test_a_failure_at_any_call_of_a_repair_is_made_up_for_by_the_next(start, kernel, agree):
    failures = 0
    for number in range(1, 100):
        netd = await start()
        vms = [new_vm_id() for _ in range(3)]
        for vm in vms[:2]:
            await netd.attach(vm)
        await kernel.remove_bridge("nexbr0")
        kernel.calls.clear()
        kernel.fail_at = number
        try:
            await netd.attach(vms[2])
        except KernelError:
            failures += 1
        else:
            break
        kernel.fail_at = 0
        await netd.attach(vms[2])
        await agree(netd)
        await netd.cleanup()
    assert failures > 12


async def test_a_bridge_that_somebody_replaced_gets_all_ports_again(netd, kernel, agree):
    vm = new_vm_id()
    await netd.attach(vm)
    bridge, addresses = kernel.links["nexbr0"], list(kernel.bridge_addresses)
    await kernel.remove_bridge("nexbr0")
    await kernel.put_bridge(bridge)
    kernel.bridge_addresses[:] = addresses
    await netd.attach(new_vm_id())
    await agree(netd)


async def test_other_tables_that_change_cost_no_look_at_ports(netd, kernel):
    await netd.attach(new_vm_id())
    kernel.generation += 1
    kernel.calls.clear()
    await netd.attach(new_vm_id())
    assert "taps" not in kernel.calls
    kernel.calls.clear()
    await netd.attach(new_vm_id())
    assert kernel.calls == ["stamp", "new_tap", "keep"]


@pytest.mark.parametrize("taken", ["172.17.0.0/16", "172.16.5.5/32", "172.0.0.0/8"])
async def test_a_subnet_in_use_is_refused_and_nothing_is_touched(netd, kernel, taken):
    kernel.routes.append((IPv4Network(taken), "docker0"))
    with pytest.raises(FailedPrecondition, match=f"overlaps {taken} on docker0") as caught:
        await netd.attach(new_vm_id())
    assert caught.value.reason == "SUBNET_IN_USE"
    assert not kernel.links
    assert kernel.rules is None
    assert not kernel.is_forwarding
    assert await netd.all() == []


async def test_routes_beside_the_subnet_and_our_own_do_not_matter(netd, kernel):
    kernel.routes += [(IPv4Network("10.0.0.0/8"), "eth0"), (IPv4Network("172.16.0.0/12"), "nexbr0")]
    assert await netd.ensure() == MADE


async def test_a_foreign_link_of_that_name_is_left_alone(netd, kernel):
    foreign = kernel.links["nexbr0"] = Bridge("nexbr0", "", 1500, kind="dummy")
    with pytest.raises(FailedPrecondition, match="dummy") as caught:
        await netd.ensure()
    assert caught.value.reason == "BRIDGE_FOREIGN"
    await netd.cleanup()
    assert kernel.links == {"nexbr0": foreign}


async def test_a_failure_at_any_call_leaves_no_new_bridge_and_ensure_finishes_later(start, kernel):
    failures = 0
    for number in range(1, 100):
        netd = await start()
        kernel.calls.clear()
        kernel.fail_at = number
        try:
            await netd.ensure()
        except KernelError:
            failures += 1
            assert "nexbr0" not in kernel.links or kernel.rules is not None
        else:
            break
        kernel.fail_at = 0
        await netd.ensure()
        await netd.cleanup()
    assert failures > 8


async def test_reconcile_survives_a_host_that_is_not_fit(netd, kernel, caplog):
    kernel.routes.append((IPv4Network("172.16.0.0/12"), "eth9"))
    await netd.reconcile()
    assert "overlaps 172.16.0.0/12 on eth9" in caplog.text
    kernel.routes.clear()
    await netd.attach(new_vm_id())


async def test_cleanup_says_what_it_removed_and_attach_brings_it_back(netd, kernel, agree):
    vms = [new_vm_id() for _ in range(3)]
    for vm in vms:
        await netd.attach(vm)
    removed = await netd.cleanup()
    assert removed.taps == ["nexus0", "nexus1", "nexus2"]
    assert (removed.bridge, removed.tables, removed.leases) == (True, ["inet nexus"], 3)
    assert (kernel.present, kernel.links, kernel.rules, kernel.pins) == ({}, {}, None, {})
    assert await netd.all() == []
    again = await netd.cleanup()
    assert (again.taps, again.bridge, again.tables, again.leases) == ([], False, [], 0)
    await netd.attach(vms[0])
    await agree(netd)


@pytest.fixture
async def guarded(netd):
    """netd with its guard, looking without pause."""
    await netd.ensure()
    task = asyncio.create_task(netd.guard(0.001))
    yield netd
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # there is nothing to be told by
            await asyncio.sleep(0.001)


async def test_rules_that_a_firewall_reload_took_come_back_by_themselves(guarded, kernel):
    table, kernel.rules, kernel.generation = kernel.rules, None, kernel.generation + 1
    await until(lambda: kernel.rules == table)


async def test_a_bridge_that_was_removed_comes_back_by_itself(guarded, kernel, agree):
    await guarded.attach(new_vm_id())
    await kernel.remove_bridge("nexbr0")
    await until(lambda: kernel.rules and all(tap.isolated for tap in kernel.present.values()))
    await agree(guarded)


async def test_what_was_cleaned_up_stays_away(guarded, kernel):
    await guarded.cleanup()
    kernel.generation += 1
    seen = len(kernel.calls)
    for _ in range(20):
        await asyncio.sleep(0.001)  # the guard looks in between, at nothing
    assert (kernel.links, kernel.rules, len(kernel.calls)) == ({}, None, seen)


async def test_a_repair_that_fails_is_logged_once_and_tried_again(guarded, kernel, caplog):
    kernel.routes.append((IPv4Network("172.16.0.0/16"), "docker0"))
    await kernel.remove_bridge("nexbr0")
    looks = len(kernel.calls)
    await until(lambda: len(kernel.calls) > looks + 20)
    assert caplog.text.count("network not repaired") == 1
    kernel.routes.clear()
    await until(lambda: "nexbr0" in kernel.links)
