"""What is reported to vmm, and how often."""

import asyncio

import pytest

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_gateway.guest import Guest, State
from nexus_gateway.notice import Notice
from nexus_gateway.reports import Reporter
from nexus_gateway.vms import Vms

VM = pb.Vm(id="a" * 13, name="hello", state=pb.VM_STATE_RUNNING, boot="boot-1")


class Unmoved:
    """vmm as it is while it boots a VM once more: it takes the report, and the state stays."""

    def __init__(self):
        self.reports = []

    async def report(self, vm, event, reason):
        self.reports.append(event)
        await asyncio.sleep(0)
        return vm


async def test_a_report_that_changes_nothing_is_not_repeated_at_once():
    vmm, changed = Unmoved(), Notice()
    lost = Guest(VM.id, VM.boot, State.UNREACHABLE, "not a word")
    task = asyncio.create_task(Reporter(VM, lambda: lost, Vms(vmm, changed), vmm, changed).run())
    for _ in range(50):
        changed.post()
        await asyncio.sleep(0)
    assert vmm.reports == [pb.GUEST_EVENT_LOST]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
