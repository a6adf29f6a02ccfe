"""The port to systemd: the same cases against the fake and the real adapter.

The real one speaks D-Bus over a real dbus-daemon to a stand-in for systemd.
"""

import asyncio
import signal
from contextlib import asynccontextmanager

import pytest
import vmm_units
from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus
from vmm_systemd import NAME, PROPERTIES, FakeSystemd, message_bus, unit_path

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_vmm.machine import bus
from nexus_vmm.machine import systemd as systemd_module
from nexus_vmm.machine.systemd import SystemdUnits

ID = "aaaaaaaaaaaaa"
OTHER = "bbbbbbbbbbbbb"


@asynccontextmanager
async def fake(directory, monkeypatch):
    model = vmm_units.Model(vmm_units.idle)
    yield vmm_units.FakeUnits(model), model
    await model.close()


@asynccontextmanager
async def real(directory, monkeypatch):
    async with world(directory, monkeypatch) as (units, systemd):
        yield units, systemd.model


@asynccontextmanager
async def world(directory, monkeypatch):
    async with message_bus(directory) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        systemd = FakeSystemd(vmm_units.Model(vmm_units.idle))
        await systemd.connect(address)
        units = await SystemdUnits.open()
        keeper = asyncio.create_task(units.keep_connected())
        yield units, systemd
        await systemd.model.close()
        keeper.cancel()
        await asyncio.wait({keeper})
        units.close()
        await systemd.close()


@pytest.fixture(params=[fake, real])
async def units(request, short_path, monkeypatch):
    async with request.param(short_path, monkeypatch) as made:
        yield made


async def test_a_started_unit_runs_with_pid_and_invocation(units):
    units, model = units
    unit = await units.start(ID)
    assert unit == await units.describe(ID) == model.describe(ID)
    assert (unit.state, unit.gone, unit.pid) == ("running", False, model.processes[ID].pid)
    assert len(unit.invocation) == 32


async def test_each_start_is_another_invocation(units):
    units, _ = units
    first = await units.start(ID)
    await units.stop(ID)
    assert (await units.start(ID)).invocation != first.invocation


async def test_an_unknown_unit_is_gone(units):
    units, _ = units
    unit = await units.describe(ID)
    assert (unit.gone, unit.invocation, unit.pid) == (True, "", 0)
    assert (await units.wait(ID)).gone
    await units.stop(ID)
    assert await units.loaded() == set()


async def test_stop_leaves_nothing(units):
    units, _ = units
    await units.start(ID)
    await units.start(OTHER)
    await units.stop(ID)
    assert (await units.describe(ID)).gone
    assert not (await units.describe(OTHER)).gone


@pytest.mark.parametrize(
    ("code", "seen"),
    [(0, (1, 0)), (3, (1, 3)), (-signal.SIGKILL, (2, 9)), (-signal.SIGTERM, (2, 15))],
)
async def test_wait_tells_how_it_ended(units, code, seen):
    units, model = units
    await units.start(ID)
    waiting = asyncio.create_task(units.wait(ID))
    await units.describe(ID)
    assert not waiting.done()
    model.processes[ID].end(code)
    unit = await asyncio.wait_for(waiting, 5)
    assert unit.gone
    assert (unit.exit_code, unit.exit_status) == seen


async def test_another_invocation_ends_the_wait_for_one(units):
    units, model = units
    unit = await units.start(ID)
    waiting = asyncio.create_task(units.wait(ID, unit.invocation))
    await units.describe(ID)
    assert not waiting.done()
    await model.stop(ID)
    await model.start(ID)
    now = await asyncio.wait_for(waiting, 5)
    # It may have been seen between the two.
    assert now.gone or now.invocation != unit.invocation
    assert (await units.wait(ID, unit.invocation)).invocation == model.describe(ID).invocation


async def test_several_may_wait_for_one_unit(units):
    units, model = units
    await units.start(ID)
    waiting = [asyncio.create_task(units.wait(ID)) for _ in range(3)]
    await units.describe(ID)
    model.processes[ID].end(-signal.SIGKILL)
    assert len(await asyncio.wait_for(asyncio.gather(*waiting), 5)) == 3


async def test_a_failed_unit_is_kept_until_it_is_stopped(units):
    units, _ = units
    await units.start(ID)
    await units.kill(ID, signal.SIGKILL)
    await asyncio.wait_for(units.wait(ID), 5)
    assert await units.loaded() == {ID}
    assert (await units.describe(ID)).exit_status == signal.SIGKILL
    await units.stop(ID)
    assert await units.loaded() == set()


@pytest.mark.parametrize("code", [0, -signal.SIGTERM])
async def test_a_unit_that_ended_well_is_remembered_until_it_is_stopped(units, code):
    units, model = units
    unit = await units.start(ID)
    model.processes[ID].end(code)
    await asyncio.wait_for(units.wait(ID), 5)
    # As one sees it who was away meanwhile.
    known = await units.describe(ID)
    assert (known.gone, known.result, known.invocation) == (True, "success", unit.invocation)
    assert (known.exit_status, known.exit_time > 0) == (abs(code), True)
    assert await units.loaded() == {ID}
    await units.stop(ID)
    assert (await units.describe(ID)).exit_code == 0
    assert await units.loaded() == set()
    again = await units.start(ID)
    assert (again.gone, again.invocation != unit.invocation) == (False, True)


async def test_kill_of_what_does_not_run_is_refused(units):
    units, _ = units
    with pytest.raises(FailedPrecondition) as caught:
        await units.kill(ID, signal.SIGKILL)
    assert caught.value.reason == "UNIT_FAILED"


async def test_version(units):
    units, _ = units
    assert await units.version() == vmm_units.VERSION


async def test_refusal_carries_systemds_words(short_path, monkeypatch):
    async with world(short_path, monkeypatch) as (units, systemd):
        systemd.denies = True
        with pytest.raises(FailedPrecondition, match="StartUnit: Permission denied"):
            await units.start(ID)


async def test_a_failed_job_is_an_error(short_path, monkeypatch):
    async with world(short_path, monkeypatch) as (units, systemd):

        async def broken(vm_id):
            raise OSError

        systemd.model.launch = broken
        with pytest.raises(FailedPrecondition, match="failed"):
            await units.start(ID)


async def test_an_end_while_the_bus_is_away_is_not_missed(short_path, monkeypatch):
    async with world(short_path, monkeypatch) as (units, systemd):
        await units.start(ID)
        waiting = asyncio.create_task(units.wait(ID))
        await units.describe(ID)
        # As when systemd re-executes itself: it leaves the bus and comes back under its name.
        systemd.bus.disconnect()
        await systemd.bus.wait_for_disconnect()
        systemd.model.processes[ID].end(-signal.SIGKILL)
        await systemd.connect(await address_of(short_path))
        assert (await asyncio.wait_for(waiting, 10)).gone
        assert (await until_connected(units)).gone


async def test_an_end_while_systemd_does_not_answer_is_not_missed(short_path, monkeypatch):
    async with world(short_path, monkeypatch) as (units, systemd):
        await units.start(ID)
        waiting = asyncio.create_task(units.wait(ID))
        await units.describe(ID)
        monkeypatch.setattr(bus, "_CALL_SECONDS", 0.3)
        monkeypatch.setattr(systemd_module, "_AGAIN_SECONDS", 0.1)
        systemd.silent = True
        systemd.model.processes[ID].end(-signal.SIGKILL)
        for _ in range(2):  # by the second look all signals of it have come
            await asyncio.wait_for(systemd.unheard.get(), 5)
        systemd.silent = False
        assert (await asyncio.wait_for(waiting, 10)).exit_status == signal.SIGKILL


async def address_of(directory):
    return f"unix:path={directory}/bus.sock"


async def until_connected(units):
    async with asyncio.timeout(10):
        while True:
            try:
                return await units.describe(ID)
            except Unavailable:
                await asyncio.sleep(0.01)


async def test_without_a_bus_it_is_unavailable(monkeypatch, short_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={short_path}/none")
    with pytest.raises(Unavailable) as caught:
        await SystemdUnits.open()
    assert caught.value.reason == "SYSTEMD_UNREACHABLE"


async def test_signals_of_others_are_not_believed(short_path, monkeypatch):
    async with world(short_path, monkeypatch) as (units, systemd):
        await units.start(ID)
        waiting = asyncio.create_task(units.wait(ID))
        await units.describe(ID)
        reads = systemd.calls.count("Get")
        forger = await MessageBus(bus_address=await address_of(short_path)).connect()
        forged = Message.new_signal(
            unit_path(ID),
            PROPERTIES,
            "PropertiesChanged",
            "sa{sv}as",
            [f"{NAME}.Unit", {"SubState": Variant("s", "failed")}, []],
        )
        forged.destination = units._bus._bus.unique_name
        await forger.send(forged)
        await units.describe(OTHER)
        assert not waiting.done()
        assert systemd.calls.count("Get") == reads + 7  # those of OTHER alone
        waiting.cancel()
        forger.disconnect()
        await forger.wait_for_disconnect()


async def test_whether_the_host_goes_down(short_path, monkeypatch):
    async with world(short_path, monkeypatch) as (units, systemd):
        assert not await units.host_stops()
        systemd.state = "stopping"
        assert await units.host_stops()


async def test_as_the_host_goes_down_no_job_is_asked_for_where_no_process_is_left(
    short_path, monkeypatch
):
    async with world(short_path, monkeypatch) as (units, systemd):
        await units.start(ID)
        systemd.state = "stopping"
        systemd.model.processes[ID].end(0)
        await asyncio.wait_for(units.wait(ID), 5)
        await units.stop(ID)
        assert "StopUnit" not in systemd.calls
        systemd.state = "running"
        await units.stop(ID)
        assert await units.loaded() == set()
