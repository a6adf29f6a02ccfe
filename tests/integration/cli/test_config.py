"""nexusctl config, vm balloon and what status tells of room, against the fakes."""

from nexus.vmm.v1 import vmm_pb2

READY = vmm_pb2.VM_STATE_READY


async def test_settings_are_listed_and_one_is_got(nexusctl, fakes):
    done = await nexusctl("config", "list")
    assert done.code == 0
    header, *rows, version = done.out.decode().splitlines()
    assert header.split() == ["NAME", "VALUE", "UNIT", "DEFAULT", "MEANING"]
    assert rows[1].split()[:4] == ["default.memory_mib", "128", "MiB", "128"]
    assert version == "version 0"
    told = (await nexusctl("config", "list", "--json")).json
    assert (told["version"], len(told["settings"])) == (0, 3)
    assert (await nexusctl("config", "get", "default.memory_mib")).out == b"128\n"
    one = (await nexusctl("config", "get", "default.memory_mib", "--json")).json
    assert one == told["settings"][1]
    assert one["range"] == "1 to 9"


async def test_an_unknown_setting_is_not_found(nexusctl):
    done = await nexusctl("config", "get", "nonsense")
    assert (done.code, "nexusctl config list" in done.err) == (4, True)
    done = await nexusctl("config", "set", "nonsense=1")
    assert (done.code, "'nonsense'" in done.err) == (1, True)


async def test_set_history_and_rollback(nexusctl, fakes):
    quota = "quota.tags=team=blue: vms=1"
    done = await nexusctl("config", "set", "default.memory_mib=256", quota)
    assert (done.code, done.err) == (0, "")
    assert done.out.decode().splitlines() == [
        "default.memory_mib=256",
        "quota.tags=team=blue: vms=1",
        "version 1",
    ]
    (request,) = fakes.requests["UpdateSettings"]
    assert dict(request.values) == {
        "default.memory_mib": "256",
        "quota.tags": "team=blue: vms=1",
    }
    told = (await nexusctl("config", "set", "quota.tags=", "--expect", "1", "--json")).json
    assert (told["version"], told["settings"][2]["value"]) == (2, "")
    done = await nexusctl("config", "rollback", "1")
    assert done.out.decode().splitlines() == [
        "default.memory_mib=256",
        "quota.tags=team=blue: vms=1",
        "version 3",
    ]
    assert (await nexusctl("config", "rollback", "0", "--json")).json["version"] == 4
    text = (await nexusctl("config", "history")).out.decode()
    assert "version 4  2027-01-15T08:00:00.000Z  back to the defaults\n" in text
    assert "version 3  2027-01-15T08:00:00.000Z  back to 1\n" in text
    assert "version 1  2027-01-15T08:00:00.000Z\n  default.memory_mib: 128 -> 256\n" in text
    assert "  quota.tags: nothing -> team=blue: vms=1\n" in text
    versions = (await nexusctl("config", "history", "--json")).json["versions"]
    assert [(one["version"], one["rolled_back_to"]) for one in versions] == [
        (4, 0),
        (3, 1),
        (2, None),
        (1, None),
    ]
    assert versions[3]["changes"][0] == {
        "name": "default.memory_mib",
        "old_value": "128",
        "new_value": "256",
    }


async def test_what_cannot_be_set(nexusctl, fakes):
    for wrong in (("default.memory_mib",), ("=1",), ()):
        assert (await nexusctl("config", "set", *wrong)).code == 2
    done = await nexusctl("config", "set", "capacity.vms=1", "capacity.vms=2")
    assert (done.code, "named twice" in done.err) == (2, True)
    assert fakes.calls == []
    done = await nexusctl("config", "set", "capacity.vms=1", "--expect", "7")
    assert (done.code, "nexusctl config list" in done.err) == (5, True)
    done = await nexusctl("config", "rollback", "9")
    assert (done.code, "nexusctl config history" in done.err) == (4, True)


async def test_a_balloon(nexusctl, fakes):
    vm = fakes.add_vm("hello", READY)
    done = await nexusctl("vm", "balloon", "hello", "1G")
    assert (done.code, "vm update hello --balloon on" in done.err) == (5, True)
    vm.spec.balloon = True
    done = await nexusctl("vm", "balloon", "hello", "1G")
    assert (done.code, done.out) == (0, b"hello is to give up 1024 MiB\n")
    assert (await nexusctl("vm", "balloon", "hello", "0", "--json")).json["name"] == "hello"
    assert [one.amount_mib for one in fakes.requests["SetBalloon"]] == [1024, 1024, 0]


async def test_a_balloon_is_asked_for(nexusctl, fakes):
    await nexusctl("vm", "create", "hello", "--balloon", "--no-network")
    assert fakes.requests["CreateVm"][0].spec.balloon
    await nexusctl("vm", "update", "hello", "--balloon", "off")
    (request,) = fakes.requests["UpdateVm"]
    assert (list(request.update_mask.paths), request.spec.balloon) == (["balloon"], False)


async def test_what_is_not_given_is_left_to_the_settings(nexusctl, fakes):
    await nexusctl("vm", "create", "hello", "--no-network")
    spec = fakes.requests["CreateVm"][0].spec
    assert (spec.image, spec.kernel, spec.vcpu_count, spec.memory_mib) == ("", "", 0, 0)
    fakes.add_vm("other", READY)
    await nexusctl("vm", "stop", "other")
    await nexusctl("vm", "delete", "other", "--force", "--yes")
    await nexusctl("vm", "stop", "hello", "--grace", "0")
    first, second, third = fakes.requests["StopVm"]
    assert not first.HasField("grace_seconds")
    assert not second.HasField("grace_seconds")
    assert (third.HasField("grace_seconds"), third.grace_seconds) == (True, 0)


async def test_status_tells_what_room_there_is(nexusctl, fakes):
    fakes.budgets = [
        vmm_pb2.Budget(what="memory_mib", limit=1024, used=256),
        vmm_pb2.Budget(what="vms", limit=10, used=2),
        vmm_pb2.Budget(what="vms", tag="team=blue", limit=3, used=1),
        vmm_pb2.Budget(what="gpus", tag="team=blue", limit=2, used=1),
    ]
    text = (await nexusctl("status")).out.decode()
    assert "used: 256 of 1024 MiB of memory, 2 of 10 VMs\n" in text
    assert "used by team=blue: 1 of 3 VMs, 1 of 2 gpus\n" in text
    told = (await nexusctl("status", "--json")).json["capacity"]
    assert told[2] == {"what": "vms", "tag": "team=blue", "limit": 3, "used": 1}
