"""Telling vmm of uses: at once, in time, and never in the way of who uses."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from gateway_doubles import make_vm

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_gateway.notice import Notice
from nexus_gateway.uses import Uses
from nexus_gateway.vms import Vms
from nexus_rpc.errors import NotFound, Unavailable

VM = "a" * 13
IDLE = pb.VmSpec(ttl=pb.TimeToLive(idle_seconds=10))
EVERY = 0.05


class Touched:
    """What vmm hears; `answers` are what it raises for the first calls."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = asyncio.Queue()
        self.times = []

    async def touch(self, vm_id):
        self.times.append(asyncio.get_running_loop().time())
        self.calls.put_nowait(vm_id)
        if self.answers:
            raise self.answers.pop(0)


@asynccontextmanager
async def telling(vmm, *known):
    vms = Vms(vmm, Notice())
    for vm in known:
        vms.apply(pb.WatchVmsResponse(vm=vm))
    uses = Uses(vms, vmm, every=EVERY)
    task = asyncio.create_task(uses.run())
    try:
        async with asyncio.timeout(10):
            yield uses, vms
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def quiet(uses):
    """Return once everything has been told."""
    while uses._telling:  # noqa: ASYNC110  # nobody tells of it
        await asyncio.sleep(EVERY)
    assert (uses._untold, uses._under_way) == (set(), {})


async def test_a_use_is_told_at_once_and_so_is_its_end():
    vmm = Touched()
    async with telling(vmm, make_vm(spec=IDLE)) as (uses, _):
        with uses.of(VM):
            assert vmm.calls.empty(), "who uses a VM waits for nothing"
            assert await vmm.calls.get() == VM
        assert await vmm.calls.get() == VM
        await quiet(uses)
    assert vmm.calls.empty()


async def test_a_long_use_is_told_again_and_again():
    vmm = Touched()
    async with telling(vmm, make_vm(spec=IDLE)) as (uses, _):
        with uses.of(VM):
            for _ in range(5):
                await vmm.calls.get()
        await quiet(uses)
    gaps = [late - early for early, late in zip(vmm.times, vmm.times[1:], strict=False)]
    assert min(gaps) > 0.9 * EVERY


async def test_many_uses_at_once_are_told_as_one():
    vmm = Touched()
    async with telling(vmm, make_vm(spec=IDLE)) as (uses, _):
        for _ in range(500):
            with uses.of(VM), uses.of(VM):
                await asyncio.sleep(0)
        await quiet(uses)
    gaps = [late - early for early, late in zip(vmm.times, vmm.times[1:], strict=False)]
    assert all(gap > 0.9 * EVERY for gap in gaps)


async def test_a_vm_without_an_idle_time_is_not_told_until_it_has_one():
    vmm = Touched()
    async with telling(vmm, make_vm()) as (uses, vms):
        with uses.of("b" * 13):  # which vmm has not told yet
            pass
        with uses.of(VM):
            await asyncio.sleep(3 * EVERY)
            assert vmm.calls.empty()
            vms.apply(pb.WatchVmsResponse(vm=make_vm(spec=IDLE)))
            assert await vmm.calls.get() == VM
        await quiet(uses)


async def test_vmm_that_is_away_hears_of_it_when_it_is_back():
    vmm = Touched(*[Unavailable("UNAVAILABLE", "no connection")] * 3)
    async with telling(vmm, make_vm(spec=IDLE)) as (uses, _):
        with uses.of(VM):
            pass
        await quiet(uses)
    assert vmm.calls.qsize() == 4


async def test_a_vm_that_is_gone_is_let_be(caplog):
    vmm = Touched(NotFound("VM_NOT_FOUND", "none"))
    async with telling(vmm, make_vm(spec=IDLE)) as (uses, _):
        with pytest.raises(ZeroDivisionError), uses.of(VM):
            raise ZeroDivisionError
        await quiet(uses)
    assert vmm.calls.qsize() == 1
    assert "VM_NOT_FOUND" in caplog.text or "none" in caplog.text


async def test_vmm_that_does_not_answer_about_one_holds_up_no_other():
    asked = asyncio.Event()

    class Slow(Touched):
        async def touch(self, vm_id):
            if vm_id == VM:
                asked.set()
                await asyncio.Event().wait()
            await super().touch(vm_id)

    vmm = Slow()
    other = "b" * 13
    async with telling(vmm, make_vm(spec=IDLE), make_vm("b", vm_id=other, spec=IDLE)) as (uses, _):
        with uses.of(VM):
            await asked.wait()
        with uses.of(other):
            assert await vmm.calls.get() == other
