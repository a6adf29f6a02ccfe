"""Lists of VMs, their tags, and watching them."""

import asyncio
import json
import signal

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_rpc.errors import FailedPrecondition, InvalidArgument

READY = pb.VM_STATE_READY


def mismatch():
    return FailedPrecondition("ETAG_MISMATCH", "the spec of VM 'hello' has changed")


def tagged(fakes, name="hello", **tags):
    vm = fakes.add_vm(name)
    vm.spec.tags.update(tags)
    return vm


async def test_list_asks_for_what_the_options_name(nexusctl, fakes):
    tagged(fakes, "a", team="blue", env="prod")
    tagged(fakes, "b", team="red", env="prod")
    done = await nexusctl(
        *("vm", "list", "--state", "created", "--state", "ready", "--tag", "team=blue"),
        *("--tag", "env", "--name", "a", "--image", "debian", "--order", "memory", "--reverse"),
    )
    assert [row.split()[0] for row in done.out.decode().splitlines()] == ["NAME", "a"]
    (request,) = fakes.requests["ListVms"]
    wanted = request.filter
    assert list(wanted.states) == [pb.VM_STATE_CREATED, READY]
    assert (wanted.tags, wanted.name_prefix, wanted.image) == (
        {"team": "blue", "env": ""},
        "a",
        "debian",
    )
    assert (request.order_by, request.descending) == (pb.VM_ORDER_MEMORY, True)


async def test_list_prints_the_columns_asked_for_and_asks_for_no_more(nexusctl, fakes):
    vm = tagged(fakes, team="blue", env="prod")
    vm.spec.memory_mib, vm.last_exit.cause = 256, "oom"
    vm.last_exit.time.GetCurrentTime()
    done = await nexusctl("vm", "list", "--columns", "name,memory,tags,exit")
    head, row = done.out.decode().splitlines()
    assert head.split() == ["NAME", "MEMORY", "TAGS", "EXIT"]
    assert row.split() == ["hello", "256", "env=prod", "team=blue", "oom", "0s", "ago"]
    (request,) = fakes.requests["ListVms"]
    assert list(request.field_mask.paths) == ["name", "spec.memory_mib", "spec.tags", "last_exit"]
    assert (await nexusctl("vm", "list", "--quiet")).out.decode() == f"{vm.id}\n"
    assert list(fakes.requests["ListVms"][1].field_mask.paths) == ["id"]
    shown = (await nexusctl("vm", "list", "--json")).json["vms"][0]
    assert shown["spec"]["tags"] == {"env": "prod", "team": "blue"}
    assert not fakes.requests["ListVms"][2].field_mask.paths


async def test_every_column_can_be_printed(nexusctl, fakes):
    fakes.add_vm("hello", READY)
    names = "name,id,state,reason,changed,address,image,kernel,cpus,memory,disk,restart,tags,exit"
    names += ",ttl,expires"
    done = await nexusctl("vm", "list", "--columns", f"{names},pid,uid,age")
    assert (done.code, len(done.out.decode().splitlines())) == (0, 2)


async def test_a_mistake_in_a_list_is_told(nexusctl, fakes):
    for arguments in (("--columns", "nome"), ("--state", "dead"), ("--tag", "=x"), ("--tag", "x=")):
        done = await nexusctl("vm", "list", *arguments)
        assert (done.code, arguments[0] in done.err) == (2, True)
    assert (await nexusctl("vm", "list", "--json", "--columns", "name")).code == 2
    done = await nexusctl("vm", "create", "hello", "--tag", "a=1", "--tag", "a=2")
    assert (done.code, "the tag a is given twice" in done.err) == (2, True)
    fakes.fail("ListVms", InvalidArgument("INVALID_FIELD", "filter.tags is 'X'", field="f"))
    assert (await nexusctl("vm", "list", "--tag", "X")).code == 1


async def test_create_with_tags(nexusctl, fakes):
    done = await nexusctl("vm", "create", "hello", "--tag", "team=blue", "--tag", "note=a=b c")
    assert done.code == 0
    assert fakes.requests["CreateVm"][0].spec.tags == {"team": "blue", "note": "a=b c"}


async def test_update_changes_the_tags_that_it_names(nexusctl, fakes):
    vm = tagged(fakes, team="blue", env="prod", old="1")
    vm.etag = "2-1"
    done = await nexusctl(
        *("vm", "update", "hello", "--tag", "team=red", "--tag", "new=2"),
        *("--untag", "old", "--untag", "none", "--cpus", "2"),
    )
    assert (done.code, done.out) == (0, b"hello changed\n")
    assert vm.spec.tags == {"team": "red", "env": "prod", "new": "2"}
    assert vm.spec.vcpu_count == 2
    (request,) = fakes.requests["UpdateVm"]
    assert (request.vm, request.etag) == (vm.id, "2-1")
    assert list(request.update_mask.paths) == ["vcpu_count", "tags"]


async def test_tags_are_read_again_where_the_vm_changed_meanwhile(nexusctl, fakes):
    vm = tagged(fakes, team="blue")
    fakes.fail("UpdateVm", mismatch())
    assert (await nexusctl("vm", "update", "hello", "--untag", "team")).code == 0
    assert not vm.spec.tags
    first, second = fakes.requests["UpdateVm"]
    assert first.request_id != second.request_id


async def test_tags_are_not_read_again_for_ever_nor_against_an_etag(nexusctl, fakes):
    tagged(fakes, team="blue").etag = "2-1"
    for _ in range(5):
        fakes.fail("UpdateVm", mismatch())
    assert (await nexusctl("vm", "update", "hello", "--untag", "team")).code == 5
    assert len(fakes.requests["UpdateVm"]) == 5
    done = await nexusctl("vm", "update", "hello", "--untag", "team", "--etag", "1-1")
    assert (done.code, len(fakes.requests["UpdateVm"])) == (5, 6)


async def test_watch_tells_the_present_and_each_change(nexusctl, fakes):
    vm = fakes.add_vm("hello", READY)
    process = await nexusctl.start("vm", "watch", "--after", "7")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == f"hello  {vm.id}  ready\n".encode()
        assert b"--after 41 would carry on here" in await process.stderr.readline()
        told = pb.Vm(id=vm.id, name="hello", state=READY, stopping=True, state_reason="\x1b[2J")
        fakes.tell(pb.WatchVmsResponse(vm=told, revision=42))
        assert await process.stdout.readline() == f"hello  {vm.id}  stopping  ?[2J\n".encode()
        fakes.tell(pb.WatchVmsResponse(deleted_vm_id=vm.id, revision=43))
        assert await process.stdout.readline() == f"hello  {vm.id}  deleted\n".encode()
        fakes.tell(pb.WatchVmsResponse(missed=True))
        assert b"not known any more" in await process.stderr.readline()
    assert fakes.requests["WatchVms"][0].after_revision == 7
    process.send_signal(signal.SIGINT)
    assert (await nexusctl.end(process)).code == 130


async def test_watch_as_json(nexusctl, fakes):
    vm = fakes.add_vm("hello", READY)
    process = await nexusctl.start("vm", "watch", "--json")
    async with asyncio.timeout(20):
        first = json.loads(await process.stdout.readline())
        assert (first["event"], first["revision"], first["vm"]["id"]) == ("vm", 0, vm.id)
        assert json.loads(await process.stdout.readline()) == {"event": "synced", "revision": 41}
        fakes.tell(pb.WatchVmsResponse(deleted_vm_id=vm.id, revision=43))
        gone = {"event": "deleted", "revision": 43, "id": vm.id}
        assert json.loads(await process.stdout.readline()) == gone
        fakes.tell(pb.WatchVmsResponse(missed=True))
        assert json.loads(await process.stdout.readline()) == {"event": "missed", "revision": 0}
    process.send_signal(signal.SIGINT)
    await nexusctl.end(process)
