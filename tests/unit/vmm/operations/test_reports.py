"""What the gateway reports of guests."""

import asyncio

import pytest
from vmm_life import living

from nexus_rpc.errors import FailedPrecondition, NotFound
from nexus_vmm.states import Event, State


@living
async def test_reports_are_checked(vmm, world):
    await vmm.create()
    with pytest.raises(FailedPrecondition) as caught:
        await vmm.supervisor.report("hello", "", Event.HELLO, "")
    assert caught.value.reason == "VM_STATE"
    boot = (await vmm.start()).boot
    with pytest.raises(FailedPrecondition) as caught:
        await vmm.supervisor.report("hello", "an earlier boot", Event.HELLO, "")
    assert caught.value.reason == "STALE_BOOT"
    with pytest.raises(NotFound):
        await vmm.supervisor.report("nobody", boot, Event.HELLO, "")
    first = await vmm.supervisor.report("hello", boot, Event.HELLO, "said hello")
    assert (first.state, first.reason) == (State.ONLINE, "said hello")
    assert await vmm.supervisor.report("hello", boot, Event.HELLO, "again") == first


@living
async def test_a_report_does_not_wait_for_an_operation(vmm, world):
    vm = await vmm.create()
    boot = (await vmm.start()).boot
    async with vmm.work.lock(vm.id):
        async with asyncio.timeout(5):
            await vmm.supervisor.report("hello", boot, Event.LOST, "")
