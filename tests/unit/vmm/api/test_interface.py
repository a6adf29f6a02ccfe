"""Changing the interface of a VM: when it may, what is kept, and repeats."""

import asyncio
import json
import sqlite3
from dataclasses import replace

import pytest
from vmm_guest import NETWORK

from nexus_rpc.errors import AlreadyExists, FailedPrecondition, NotFound
from nexus_vmm.records import rows
from nexus_vmm.states import State

MOVED = replace(
    NETWORK, ipv4="10.9.0.2/16", gateway="10.9.0.1", dns=("10.9.0.1",), search=("corp.example",)
)
ELSEWHERE = replace(MOVED, tap="tap7", mac="02:fc:00:00:00:07")


def living(plan):
    """Make a test of `plan(vmm, host)`: one life of vmm, whose hub and store must agree."""

    async def test(host):
        async def life(vmm):
            await plan(vmm, host)
            assert vmm.hub.present() == await vmm.store.all()

        await host.live(life)

    return test


@living
async def test_a_live_vm_gets_other_addresses(vmm, host):
    await vmm.create(network=NETWORK)
    running = await vmm.start()
    moved = await vmm.set_network(MOVED)
    assert moved == replace(running, spec=replace(running.spec, network=MOVED), revision=2)
    assert await vmm.store.find("hello") == moved
    assert await vmm.store.history(moved) == await vmm.store.history(running)


@living
async def test_a_change_is_told_once(vmm, host):
    await vmm.create(network=NETWORK)
    told = vmm.hub.watch()
    seen = [await anext(told) for _ in range(2)]
    await vmm.set_network(MOVED)
    await vmm.set_network(MOVED)
    await vmm.set_network(NETWORK)
    seen = [(await anext(told)).what.spec.network for _ in range(2)]
    assert seen == [MOVED, NETWORK]
    await told.aclose()


@living
async def test_tap_and_mac_stay_while_the_vm_is_live(vmm, host):
    await vmm.create(network=NETWORK)
    running = await vmm.start()
    for other in (replace(MOVED, tap="tap7"), replace(MOVED, mac="02:fc:00:00:00:07")):
        with pytest.raises(
            FailedPrecondition, match=r"on tap0 with .* \(stop it first\)"
        ) as caught:
            await vmm.set_network(other)
        assert caught.value.reason == "VM_STATE"
    assert await vmm.store.find("hello") == running
    await vmm.stop()
    assert (await vmm.set_network(ELSEWHERE)).spec.network == ELSEWHERE


@living
async def test_tap_and_mac_stay_while_a_start_is_under_way(vmm, host):
    await vmm.create(network=NETWORK)
    driver = vmm.supervisor._driver
    begun, gate, start = asyncio.Event(), asyncio.Event(), driver.start

    async def held(vm):
        begun.set()
        await gate.wait()
        return await start(vm)

    driver.start = held
    starting = asyncio.create_task(vmm.start())
    async with asyncio.timeout(5):
        await begun.wait()
    with pytest.raises(FailedPrecondition, match="stop it first"):
        await vmm.set_network(ELSEWHERE)
    await vmm.set_network(MOVED)
    gate.set()
    assert (await starting).spec.network == MOVED


@living
async def test_a_vm_without_a_network_gets_none(vmm, host):
    await vmm.create()
    with pytest.raises(FailedPrecondition, match="create it anew") as caught:
        await vmm.set_network(MOVED)
    assert caught.value.reason == "NO_INTERFACE"


@living
async def test_a_vm_that_is_not_there(vmm, host):
    with pytest.raises(NotFound):
        await vmm.set_network(MOVED)


@living
async def test_a_repeat_changes_nothing_more(vmm, host):
    await vmm.create(network=NETWORK)
    await vmm.set_network(MOVED, request_id="one")
    await vmm.set_network(NETWORK, request_id="two")
    assert (await vmm.set_network(MOVED, request_id="one")).spec.network == NETWORK
    with pytest.raises(AlreadyExists, match="used for another request"):
        await vmm.set_network(NETWORK, request_id="one")


@living
async def test_what_was_refused_may_be_asked_again(vmm, host):
    await vmm.create(network=NETWORK)
    await vmm.start()
    with pytest.raises(FailedPrecondition):
        await vmm.set_network(ELSEWHERE, request_id="one")
    await vmm.stop()
    assert (await vmm.set_network(ELSEWHERE, request_id="one")).spec.network == ELSEWHERE


@living
async def test_a_repeat_of_the_creation_returns_the_vm_as_it_is_now(vmm, host):
    vm = await vmm.create(request_id="one", network=NETWORK)
    moved = await vmm.set_network(MOVED)
    assert await vmm.create(request_id="one", network=NETWORK) == moved
    with pytest.raises(AlreadyExists, match="another spec"):
        await vmm.create(vm_id=vm.id, network=NETWORK)


async def test_it_is_there_after_a_restart(host):
    async def first(vmm):
        await vmm.create(network=NETWORK)
        await vmm.start()
        await vmm.set_network(MOVED)

    async def second(vmm):
        vm = await vmm.store.find("hello")
        assert (vm.state, vm.spec.network) == (State.RUNNING, MOVED)

    await host.live(first)
    await host.live(second)


def test_a_row_of_an_earlier_release_has_no_ipv6_and_no_search_domains():
    db = sqlite3.connect(":memory:")
    db.row_factory = sqlite3.Row
    db.executescript(";".join(rows.MIGRATIONS))
    spec = {"vcpu_count": 1, "memory_mib": 128, "image": "debian", "kernel": "default"}
    spec |= {"disk_mib": 16, "balloon": False}
    fields = ("tap", "mac", "ipv4", "gateway", "dns")
    spec["network"] = {field: getattr(NETWORK, field) for field in fields}
    db.execute(
        "INSERT INTO vms (seq, id, name, spec, state, reason, created, changed, goal, boot, pid,"
        " cid) VALUES (1, 'aaaaaaaaaaaaa', 'hello', ?, 'created', '', 1, 1, 'stop', '', 0, 3)",
        (json.dumps(spec),),
    )
    assert rows.find(db, "hello").spec.network == NETWORK
    db.close()
