"""Records that cannot be read: told, left alone, and no trouble to other VMs."""

import json
from pathlib import Path

import pytest
from vmm_driver import SHUTDOWN
from vmm_life import Crash, Host, check

from nexus_rpc.errors import FailedPrecondition
from nexus_vmm.api.convert import to_proto
from nexus_vmm.places import Places
from nexus_vmm.records import damage, record
from nexus_vmm.states import LIVE, Event, State
from nexus_vmm.vm import Condition, Delay, RestartPolicy

NOWHERE = Places(Path("vms"), Path("run"))
ALWAYS = RestartPolicy(Condition.ALWAYS, Delay.IMMEDIATE)

DAMAGES = {
    "spec of no JSON": ("spec", '{"vcpu_count": 1'),
    "spec of another kind": ("spec", '["x"]'),
    "spec with a number as text": ("spec", lambda spec: spec | {"vcpu_count": "1"}),
    "spec with a number too much": ("spec", lambda spec: spec | {"tags": [["a", 1]]}),
    "spec without memory": ("spec", lambda spec: {k: spec[k] for k in spec if k != "memory_mib"}),
    "spec with something unknown": ("spec", lambda spec: spec | {"gpu": 1}),
    "spec of an unknown policy": ("spec", lambda spec: spec | {"restart": {"condition": "?"}}),
    "spec as deep as it gets": ("spec", "[" * 5_000),
    "spec of no text": ("spec", b'{"vcpu_count": \xff'),
    "spec with a number beyond all": ("spec", lambda spec: spec | {"vcpu_count": 2**40}),
    "spec with a number below 0": ("spec", lambda spec: spec | {"memory_mib": -1}),
    "spec with a tag that is none": ("spec", lambda spec: spec | {"tags": ["abc"]}),
    "restarts": ("restarts", '{"ends": ["now"]}'),
    "lifetime": ("lifetime", '{"began": null}'),
    "lifetime in another age": ("lifetime", '{"began": 9223372036854775807}'),
    "last exit": ("last_exit", '{"code": 0}'),
    "last exit of another kind": ("last_exit", '{"cause": 1, "reason": ""}'),
    "state": ("state", "sleeping"),
    "state that is never stored": ("state", "deleted"),
    "process id": ("pid", 2**40),
    "time": ("created", 2**63 - 1),
    "context id": ("cid", -(2**40)),
    "goal": ("goal", ""),
    "another's id": ("id", "../../../../etc"),
}


def placed(value):
    """Return where `value` goes in SQL; bytes that are no UTF-8 go where a text was."""
    return "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"


async def spoil(host, name, how):
    column, value = DAMAGES[how]

    def work(db):
        if callable(value):
            (text,) = db.execute(f"SELECT {column} FROM vms WHERE name = ?", (name,)).fetchone()
            changed = json.dumps(value(json.loads(text)))
        else:
            changed = value
        db.execute(f"UPDATE vms SET {column} = {placed(changed)} WHERE name = ?", (changed, name))

    await host.database.write(work)


async def two(vmm):
    for name in ("whole", "spoilt"):
        await vmm.create(name, restart=ALWAYS)
        await vmm.start(name)
    return {vm.name: vm for vm in vmm.hub.present()}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("boot", ["host-boot-1", "host-boot-2"])
async def test_it_is_told_and_left_and_the_others_are_served(how, boot):
    async with Host.fresh() as host:
        before = await host.live(two)
        await spoil(host, "spoilt", how)
        host.boot = boot
        process = host.world.processes[before["spoilt"].id]

        async def second(vmm):
            spoilt = await vmm.store.find("spoilt")
            assert (spoilt.state, spoilt.stopping) == (State.FAILED, False)
            assert "recovery.md" in spoilt.reason
            assert len(spoilt.reason) < 400
            message = to_proto(spoilt, NOWHERE)
            assert message.name == "spoilt"
            await vmm.touch("spoilt")
            for call in (vmm.start, vmm.stop, vmm.pause, vmm.update):
                with pytest.raises(FailedPrecondition) as caught:
                    await call(vm="spoilt")
                assert caught.value.reason in {"VM_DAMAGED", "VM_STATE"}
            with pytest.raises(FailedPrecondition):
                await vmm.supervisor.report("spoilt", spoilt.boot, Event.HELLO, "")
            # Its process and its disk are as they were.
            assert host.world.processes[before["spoilt"].id] is process
            assert host.world.disks[before["spoilt"].id]
            whole = await vmm.store.find("whole")
            assert whole.state in LIVE
            assert (await vmm.stop("whole")).state is State.STOPPED
            await vmm.delete("whole")

        await host.live(second)


STEPS = [("new", "sleeping"), ("new", "deleted"), ("time", 2**62), ("old", b"\xff")]


@pytest.mark.parametrize(("column", "value"), STEPS)
async def test_a_damaged_history_is_told_without_what_cannot_be_read(host, column, value):
    async def first(vmm):
        await vmm.create()
        await vmm.start()

    await host.live(first)
    change = f"UPDATE transitions SET {column} = {placed(value)} WHERE n = 1"
    await host.database.write(lambda db: db.execute(change, (value,)))

    async def second(vmm):
        (vm,) = vmm.hub.present()
        assert await vmm.store.history(vm) == []
        # The boot watchdog looks into it.
        host.world.end(vm.id, SHUTDOWN)
        crashed = await vmm.until(vm.id, State.CRASHED)
        assert [step.new for step in await vmm.store.history(crashed)] == [State.CRASHED]

    assert await host.live(second) is not Crash


@pytest.mark.parametrize("how", sorted(DAMAGES.keys() - {"another's id"}))
async def test_it_can_be_given_up(how):
    async with Host.fresh() as host:
        await host.live(two)
        await spoil(host, "spoilt", how)

        async def second(vmm):
            await vmm.delete("spoilt")
            assert [vm.name for vm in vmm.hub.present()] == ["whole"]
            check(vmm.hub.present(), host.world)

        await host.live(second)


async def test_from_an_id_that_cannot_be_read_no_path_is_made():
    async with Host.fresh() as host:
        before = await host.live(two)
        await spoil(host, "spoilt", "another's id")

        async def second(vmm):
            with pytest.raises(FailedPrecondition, match="VM 'spoilt': its record is damaged"):
                await vmm.delete("spoilt")
            # Nobody can say of what there is that it belongs to no VM.
            assert before["spoilt"].id in host.world.processes

        await host.live(second)


async def test_a_copy_that_is_put_back_brings_it_back():
    async with Host.fresh() as host:
        before = await host.live(two)
        spec = record.to_text(before["spoilt"].spec)
        await spoil(host, "spoilt", "spec of no JSON")
        await host.live(lambda vmm: vmm.store.find("spoilt"))
        await host.database.write(
            lambda db: db.execute("UPDATE vms SET spec = ? WHERE name = 'spoilt'", (spec,))
        )

        async def third(vmm):
            assert await vmm.store.find("spoilt") == before["spoilt"]
            check(vmm.hub.present(), host.world)

        await host.live(third)


def test_what_is_said_of_it_is_short_and_printable():
    row = dict.fromkeys(["seq", "created", "changed", "cid", "revision", "change"], 1)
    row |= dict.fromkeys(["id", "name", "goal", "boot"], "x")
    told = damage.damaged(row, ValueError("\x1b[2J" + "x" * 10_000)).damage
    assert told.isprintable()
    assert len(told) < 400
