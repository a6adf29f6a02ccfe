"""Repeats of a call, by id and by request_id, one after the other and at once."""

import asyncio

import pytest
from vmm_guest import ID
from vmm_life import living

from nexus_rpc.errors import AlreadyExists, NotFound


@living
async def test_a_taken_name_makes_no_disk(vmm, world):
    await vmm.create()
    for request_id in ("", "once", "once"):
        with pytest.raises(AlreadyExists) as caught:
            await vmm.create(vm_id=ID, request_id=request_id)
        assert caught.value.reason == "NAME_TAKEN"


@living
async def test_create_is_idempotent_by_id(vmm, world):
    vm = await vmm.create(vm_id=ID)
    assert await vmm.create(vm_id=ID) == vm
    for changes in ({"name": "other"}, {"memory_mib": 256}):
        with pytest.raises(AlreadyExists) as caught:
            await vmm.create(**{"vm_id": ID} | changes)
        assert caught.value.reason == "VM_ID_TAKEN"


@living
async def test_concurrent_repeats_create_one_vm(vmm, world):
    made = await asyncio.gather(*(vmm.create(request_id="once") for _ in range(5)))
    assert len({vm.id for vm in made}) == 1


@living
async def test_concurrent_creates_of_one_name_make_one_vm(vmm, world):
    made = await asyncio.gather(*(vmm.create() for _ in range(5)), return_exceptions=True)
    assert sorted(getattr(result, "reason", "") for result in made) == [""] + ["NAME_TAKEN"] * 4


@living
async def test_a_repeat_of_each_call_reports_and_does_nothing(vmm, world):
    created = await vmm.create(request_id="create")
    assert await vmm.create(request_id="create") == created
    started = await vmm.start(request_id="start")
    assert await vmm.start(request_id="start") == started
    stopped = await vmm.stop(request_id="stop")
    assert await vmm.stop(request_id="stop") == stopped
    await vmm.delete(request_id="delete")
    await vmm.delete(request_id="delete")
    with pytest.raises(NotFound):
        await vmm.create(request_id="create")
    with pytest.raises(NotFound):
        await vmm.start(request_id="start")


@living
async def test_a_repeated_delete_spares_the_next_vm_of_the_name(vmm, world):
    await vmm.create()
    await vmm.delete(request_id="delete")
    heir = await vmm.create()
    await vmm.delete(request_id="delete")
    assert vmm.hub.present() == [heir]


@living
async def test_a_request_id_is_for_one_body(vmm, world):
    await vmm.create(request_id="once")
    for call in (vmm.create("other", request_id="once"), vmm.start(request_id="once")):
        with pytest.raises(AlreadyExists) as caught:
            await call
        assert caught.value.reason == "REQUEST_ID_REUSED"
