"""The mirror of vmm's VMs."""

import asyncio

import pytest
from gateway_doubles import make_vm

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_gateway.notice import Notice
from nexus_gateway.vms import Vms
from nexus_rpc.errors import FailedPrecondition, InvalidArgument, NexusError, NotFound, Unavailable
from nexus_rpc.vms import Lost

DOWN = Unavailable("UNAVAILABLE", "connection refused")
SYNCED = pb.WatchVmsResponse(synced=True)


class Answers:
    """vmm, as far as GetVm: a VM, or an error."""

    def __init__(self, answer=DOWN):
        self.answer = answer
        self.asked = 0
        self.was_asked = asyncio.Event()

    async def get(self, vm):
        self.asked += 1
        self.was_asked.set()
        if isinstance(self.answer, NexusError):
            raise self.answer
        return self.answer


@pytest.fixture
def changed():
    return Notice()


@pytest.fixture
def vmm():
    return Answers()


@pytest.fixture
def vms(vmm, changed):
    return Vms(vmm, changed)


def told(vm):
    return pb.WatchVmsResponse(vm=vm)


async def test_by_id_and_by_name_without_asking(vms, vmm):
    vms.apply(told(make_vm("hello")))
    assert (await vms.find("hello")).id == "aaaaaaaaaaaaa"
    assert (await vms.find_live("aaaaaaaaaaaaa")).name == "hello"
    assert vmm.asked == 0


async def test_what_no_vm_can_be_called(vms):
    with pytest.raises(InvalidArgument):
        await vms.find("No_Good")


async def test_unknown_here_and_there(vms, vmm):
    vms.apply(SYNCED)
    vmm.answer = NotFound("VM_NOT_FOUND", "none")
    with pytest.raises(NotFound, match="'nobody'") as caught:
        await vms.find("nobody")
    assert caught.value.reason == "VM_NOT_FOUND"


async def test_unknown_while_vmm_is_down(vms):
    # Before the first sync nobody knows; afterwards what was told last counts.
    with pytest.raises(Unavailable) as caught:
        await vms.find("nobody")
    assert caught.value.reason == "VMM_UNREACHABLE"
    vms.apply(SYNCED)
    with pytest.raises(NotFound):
        await vms.find("nobody")


async def test_what_was_told_last_stands_while_vmm_is_down(vms):
    vms.apply(told(make_vm()))
    vms.apply(SYNCED)
    vms.apply(Lost(DOWN))
    assert (await vms.find_live("hello")).boot == "boot-1"
    assert (await vms.find_live("hello", fresh=True)).boot == "boot-1"


async def test_a_stream_that_carries_on_tells_only_what_changed(vms):
    vms.apply(told(make_vm("first", vm_id="a" * 13)))
    vms.apply(told(make_vm("second", vm_id="b" * 13)))
    vms.apply(SYNCED)
    vms.apply(Lost(DOWN))
    vms.apply(told(make_vm("third", vm_id="c" * 13)))
    vms.apply(pb.WatchVmsResponse(deleted_vm_id="b" * 13))
    vms.apply(SYNCED)
    assert {vm.name for vm in vms} == {"first", "third"}


@pytest.mark.parametrize("lost", [True, False])
async def test_a_new_present_replaces_the_old(vms, vmm, lost):
    vms.apply(told(make_vm("old", vm_id="a" * 13)))
    vms.apply(SYNCED)
    if lost:
        vms.apply(Lost(DOWN))
    vms.apply(pb.WatchVmsResponse(missed=True))
    vms.apply(told(make_vm("new", vm_id="b" * 13)))
    assert {vm.name for vm in vms} == {"old", "new"}
    vms.apply(SYNCED)
    assert {vm.name for vm in vms} == {"new"}


async def test_deleted(vms):
    vms.apply(told(make_vm()))
    vms.apply(pb.WatchVmsResponse(deleted_vm_id="a" * 13))
    assert list(vms) == []


@pytest.mark.parametrize(
    "state", [pb.VM_STATE_CREATED, pb.VM_STATE_STOPPED, pb.VM_STATE_CRASHED, pb.VM_STATE_FAILED]
)
async def test_not_live(vms, vmm, state):
    vms.apply(told(make_vm(state=state)))
    vmm.answer = make_vm(state=state)
    with pytest.raises(FailedPrecondition, match="start it first") as caught:
        await vms.find_live("hello")
    assert caught.value.reason == "VM_NOT_LIVE"


async def test_paused(vms, vmm):
    vmm.answer = make_vm(state=pb.VM_STATE_PAUSED)
    vms.apply(told(vmm.answer))
    with pytest.raises(FailedPrecondition, match="resume it first") as caught:
        await vms.find_live("hello")
    assert caught.value.reason == "VM_PAUSED"


async def test_a_start_that_the_stream_has_not_told_yet(vms, vmm, changed):
    stopped, started = make_vm(state=pb.VM_STATE_STOPPED, boot="old"), make_vm(boot="new")
    vms.apply(told(stopped))
    vms.apply(SYNCED)
    vmm.answer = started

    found = asyncio.create_task(vms.find_live("hello"))
    await vmm.was_asked.wait()
    assert not found.done()
    vms.apply(told(started))
    changed.post()

    assert (await found).boot == "new"


async def test_fresh_asks_for_the_boot_of_now(vms, vmm, changed):
    vms.apply(told(make_vm(boot="old")))
    vmm.answer = make_vm(boot="new")
    assert (await vms.find_live("hello", fresh=True)).boot == "new"
    assert vmm.asked == 1
