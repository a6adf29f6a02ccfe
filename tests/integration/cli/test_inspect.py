"""nexusctl vm list and inspect, against the services in memory."""

from nexus.vmm.v1 import vmm_pb2

READY = vmm_pb2.VM_STATE_READY


async def test_what_a_vm_s_end_and_last_end_are(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    vm.expire_time.FromSeconds(1_800_000_000)
    vm.last_exit.CopyFrom(vmm_pb2.Exit(cause="signal", signal=9))
    vm.last_exit.time.FromSeconds(1_700_000_000)
    told = (await nexusctl("vm", "inspect", "hello", "--json")).json
    assert told["expire_time"] == "2027-01-15T08:00:00.000Z"
    assert (told["expiring"], told["stopping"]) == (False, False)
    end = {"cause": "signal", "exit_code": None, "signal": 9, "time": "2023-11-14T22:13:20.000Z"}
    assert told["last_exit"] == end


async def test_list(nexusctl, fakes):
    fakes.page = 2
    names = ["first", "second", "third", "fourth", "fifth"]
    for name in names:
        fakes.add_vm(name, READY)
    table = await nexusctl("vm", "list")
    head, *rows = table.out.decode().splitlines()
    assert head.split() == ["NAME", "ID", "STATE", "ADDRESS", "IMAGE", "RESTART", "AGE"]
    assert [row.split()[0] for row in rows] == names
    assert rows[0].split()[2:5] == ["ready", "172.16.0.2", "debian"]
    quiet = await nexusctl("vm", "list", "--quiet")
    assert quiet.out.decode().split() == list(fakes.vms)
    listed = await nexusctl("vm", "list", "--json")
    assert [vm["name"] for vm in listed.json["vms"]] == names


async def test_list_fits_the_columns(nexusctl, fakes):
    fakes.add_vm("a-rather-long-name-for-a-machine", READY)
    done = await nexusctl("vm", "list", env={"COLUMNS": "50"})
    assert max(map(len, done.out.decode().splitlines())) <= 50


async def test_an_empty_list_is_json_too(nexusctl):
    assert (await nexusctl("vm", "list", "--json")).json == {"vms": []}


async def test_inspect_merges_the_three(nexusctl, fakes):
    fakes.add_vm("hello", READY)
    done = await nexusctl("vm", "inspect", "hello", "--json")
    vm = done.json
    assert (vm["name"], vm["state"], vm["address"]) == ("hello", "ready", "172.16.0.2")
    assert vm["port"]["tap"] == "tap2"
    assert vm["guest"]["kernel"] == "6.1.0"
    assert vm["history"][0]["to"] == "created"
    assert vm["unavailable"] == []
    text = (await nexusctl("vm", "inspect", "hello")).out.decode()
    assert "asked for" in text
    assert "\x1b" not in text, "what a guest says must not steer the terminal"


async def test_inspect_of_a_vm_that_is_not_live_has_no_guest(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    del fakes.ports[vm.id]
    shown = (await nexusctl("vm", "inspect", "hello", "--json")).json
    assert (shown["guest"], shown["port"], shown["unavailable"]) == (None, None, [])


async def test_inspect_answers_though_netd_and_gateway_are_down(nexusctl, fakes, served):
    fakes.add_vm("hello", READY)
    await served.stop("netd")
    await served.stop("gateway")
    done = await nexusctl("vm", "inspect", "hello", "--json")
    assert done.code == 0
    assert {gap["service"] for gap in done.json["unavailable"]} == {"netd", "gateway"}
    text = await nexusctl("vm", "inspect", "hello")
    assert text.code == 0
    assert "netd is not running" in text.err
    assert "gateway is not running" in text.err
