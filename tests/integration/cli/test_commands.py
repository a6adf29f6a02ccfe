"""Every command once as it should go, and what it says when it cannot."""

import asyncio
import json
import os

import pytest

from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    Unavailable,
)

READY = vmm_pb2.VM_STATE_READY


async def test_create_asks_netd_then_vmm_and_hands_the_port_over(nexusctl, fakes):
    done = await nexusctl(
        *("vm", "create", "hello", "--image", "alpine", "--kernel", "fast", "--cpus", "2"),
        *("--memory", "1G", "--disk", "4096M"),
    )
    (vm,) = fakes.vms.values()
    assert (done.code, done.err) == (0, "")
    assert done.out.decode() == f"hello created: id {vm.id}, 172.16.0.2\n"
    assert fakes.calls == ["GetVm", "AttachPort", "CreateVm"]
    spec = vm.spec
    assert (spec.image, spec.kernel, spec.vcpu_count) == ("alpine", "fast", 2)
    assert (spec.memory_mib, spec.disk_mib) == (1024, 4096)
    port = fakes.ports[vm.id]
    network = spec.network
    assert (network.tap, network.mac, network.ipv4) == (port.tap, port.mac, port.ipv4)
    assert (network.gateway, list(network.dns)) == (port.gateway, list(port.dns))


async def test_create_without_a_network_asks_only_vmm(nexusctl, fakes):
    done = await nexusctl("vm", "create", "hello", "--no-network", "--json")
    assert fakes.calls == ["GetVm", "CreateVm"]
    assert done.json["address"] is None
    assert done.json["spec"]["network"] is None


async def test_create_with_a_restart_policy(nexusctl, fakes):
    done = await nexusctl("vm", "create", "hello", "--restart", "always:fixed=5s", "--json")
    policy = fakes.requests["CreateVm"][0].spec.restart
    assert policy == vmm_pb2.RestartPolicy(
        condition=vmm_pb2.RESTART_CONDITION_ALWAYS,
        delay=vmm_pb2.RESTART_DELAY_FIXED,
        fixed_seconds=5,
    )
    assert done.json["spec"]["restart"] == "always:fixed=5s"


async def test_create_and_update_with_a_time_to_live(nexusctl, fakes):
    done = await nexusctl("vm", "create", "hello", "--ttl", "8h,idle=30m:delete", "--json")
    ttl = vmm_pb2.TimeToLive(
        max_seconds=28_800, idle_seconds=1_800, action=vmm_pb2.EXPIRE_ACTION_DELETE
    )
    assert fakes.requests["CreateVm"][0].spec.ttl == ttl
    assert done.json["spec"]["ttl"] == "8h,idle=30m:delete"
    done = await nexusctl("vm", "update", "hello", "--ttl", "none")
    assert done.code == 0
    (request,) = fakes.requests["UpdateVm"]
    assert list(request.update_mask.paths) == ["ttl"]
    assert not request.spec.ttl.max_seconds


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


async def test_update_names_what_it_changes(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    vm.etag, vm.restarts = "2-1", 3
    vm.spec.memory_mib = 128
    vm.next_start_time.FromSeconds(1_800_000_000)
    done = await nexusctl(
        *("vm", "update", "hello", "--restart", "on-failure", "--cpus", "2", "--etag", "2-1")
    )
    assert (done.code, done.out, done.err) == (0, b"hello changed\n", "")
    (request,) = fakes.requests["UpdateVm"]
    assert list(request.update_mask.paths) == ["vcpu_count", "restart"]
    assert (vm.spec.vcpu_count, vm.spec.memory_mib, vm.spec.image) == (2, 128, "debian")
    listed = (await nexusctl("vm", "list")).out.decode()
    assert "on-failure:backoff (3)" in listed
    inspected = (await nexusctl("vm", "inspect", "hello")).out.decode()
    for line in ("restart         on-failure:backoff", "restarts        3", "etag            2-1"):
        assert line in inspected
    told = (await nexusctl("vm", "update", "hello", "--memory", "1G", "--json")).json
    assert told["spec"]["memory_mib"] == 1024
    assert told["next_start_time"] == "2027-01-15T08:00:00.000Z"


async def test_update_refuses_an_old_etag_and_nothing(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "update", "hello", "--restart", "none", "--etag", "old")
    assert (done.code, "try: nexusctl vm inspect hello" in done.err) == (5, True)
    done = await nexusctl("vm", "update", "hello")
    assert (done.code, "nothing to change" in done.err) == (2, True)
    done = await nexusctl("vm", "update", "hello", "--cpus", "0")
    assert (done.code, "1 to 32" in done.err) == (1, True)
    assert fakes.calls == ["UpdateVm"]


async def test_pause_and_resume(nexusctl, fakes):
    fakes.add_vm("hello", READY)
    done = await nexusctl("vm", "pause", "hello")
    assert (done.code, done.out) == (0, b"hello is paused\n")
    done = await nexusctl("vm", "pause", "hello")
    assert (done.code, "vm inspect hello" in done.err) == (5, True)
    done = await nexusctl("vm", "resume", "hello", "--json")
    assert done.json["state"] == "running"


async def test_start_waits_for_the_guest(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "start", "hello", "--json")
    assert fakes.calls == ["GetVm", "GetPort", "AttachPort", "StartVm", "GetGuest", "GetVm"]
    assert fakes.requests["GetGuest"][0].wait_ready
    assert done.json["state"] == "ready"


async def test_start_need_not_wait(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "start", "hello", "--no-wait")
    assert (done.code, done.out) == (0, b"hello is running\n")
    assert fakes.calls == ["GetVm", "GetPort", "AttachPort", "StartVm"]


async def test_start_gives_the_vm_what_its_port_is_by_now(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    fakes.ports[vm.id].tap = "tap9"
    done = await nexusctl("vm", "start", "hello", "--no-wait")
    assert done.code == 0
    assert "hello is at 172.16.0.2/12 on tap9 now; it was at 172.16.0.2/12 on tap2" in done.err
    assert fakes.calls == ["GetVm", "GetPort", "AttachPort", "UpdateNetworkInterface", "StartVm"]
    assert fakes.requests["UpdateNetworkInterface"][0].network.tap == "tap9"


async def test_start_of_a_vm_whose_port_was_lost_makes_no_wider_one(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    del fakes.ports[vm.id]
    done = await nexusctl("vm", "start", "hello")
    assert done.code == 5
    assert "try: nexusctl net attach hello" in done.err
    assert fakes.calls == ["GetVm", "GetPort"]


async def test_start_goes_on_without_netd_and_says_so(nexusctl, fakes, served):
    fakes.add_vm("hello")
    await served.stop("netd")
    done = await nexusctl("vm", "start", "hello")
    assert done.code == 0
    assert "the port of hello was not looked at" in done.err


async def test_a_guest_that_is_not_ready_in_time(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.fail("GetGuest", DeadlineExceeded("GUEST_NOT_READY", "the guest is CONNECTING"))
    done = await nexusctl("vm", "start", "hello", "--timeout", "3")
    assert done.code == 1
    assert done.err == (
        "nexusctl: the guest is CONNECTING; hello was started\n"
        "try: nexusctl vm logs hello --tail 50, or wait longer with --timeout\n"
    )


async def test_a_gateway_that_does_not_answer_is_not_told_as_one_that_is_down(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.fail("GetGuest", "hang")
    done = await nexusctl("vm", "start", "hello", "--timeout", "0.3")
    assert done.code == 1
    assert "gateway did not answer within 0.3 s" in done.err
    assert "not running" not in done.err


async def test_a_start_whose_gateway_is_down_says_that_the_vm_runs(nexusctl, fakes, served):
    fakes.add_vm("hello")
    await served.stop("gateway")
    done = await nexusctl("vm", "start", "hello")
    assert done.code == 3
    assert "gateway is not running" in done.err
    assert "hello was started" in done.err


async def test_stop(nexusctl, fakes):
    fakes.add_vm("hello", READY)
    done = await nexusctl("vm", "stop", "hello", "--grace", "0")
    assert (done.code, done.out) == (0, b"hello is stopped\n")
    request = fakes.requests["StopVm"][0]
    assert (request.HasField("grace_seconds"), request.grace_seconds) == (True, 0)


async def test_delete_gives_the_port_back_by_id(nexusctl, fakes):
    vm = fakes.add_vm("hello")
    done = await nexusctl("vm", "delete", "hello", "--yes")
    assert (done.code, done.out) == (0, b"hello deleted\n")
    assert fakes.calls == ["GetVm", "DeleteVm", "DetachPort"]
    assert fakes.requests["DetachPort"][0].vm_id == vm.id
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_delete_without_a_terminal_needs_yes_and_asks_nobody(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "delete", "hello")
    assert done.code == 2
    assert "try: nexusctl vm delete hello --yes" in done.err
    assert fakes.calls == []


async def test_delete_of_a_live_vm_is_refused_before_anything_is_done(nexusctl, fakes):
    fakes.add_vm("hello", READY)
    done = await nexusctl("vm", "delete", "hello", "--yes")
    assert done.code == 5
    assert "--force" in done.err
    assert fakes.calls == ["GetVm"]


@pytest.mark.parametrize("state", ["VM_STATE_CREATED", "VM_STATE_UNREACHABLE"])
async def test_delete_with_force_stops_what_is_live(nexusctl, fakes, state):
    fakes.add_vm("hello", vmm_pb2.VmState.Value(state))
    done = await nexusctl("vm", "delete", "hello", "--yes", "--force")
    assert done.code == 0
    assert fakes.calls == ["GetVm", "StopVm", "DeleteVm", "DetachPort"]
    assert (fakes.vms, fakes.ports) == ({}, {})


async def test_delete_with_netd_down_deletes_and_says_what_becomes_of_the_port(
    nexusctl, fakes, served
):
    fakes.add_vm("hello")
    await served.stop("netd")
    done = await nexusctl("vm", "delete", "hello", "--yes")
    assert (done.code, fakes.vms) == (0, {})
    assert "was not given back" in done.err


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


async def test_logs(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.console = b"".join(b"line %d \x1b[1m\xff\r\n" % number for number in range(1000))
    assert (await nexusctl("vm", "logs", "hello")).out == fakes.console
    tail = await nexusctl("vm", "logs", "hello", "--tail", "2")
    assert tail.out == b"line 998 \x1b[1m\xff\r\nline 999 \x1b[1m\xff\r\n"
    assert (await nexusctl("vm", "logs", "hello", "--json", "--tail", "1")).json == {
        "vm": "hello",
        "log": "line 999 \x1b[1m�\r\n",
    }
    await nexusctl("vm", "logs", "hello", "--since", "2026-11-24T13:00:00+01:00")
    requests = fakes.requests["GetConsoleLog"]
    assert [request.tail_lines for request in requests] == [0, 2, 1, 0]
    assert not any(request.follow or request.HasField("since") for request in requests[:3])
    assert requests[3].since.ToJsonString() == "2026-11-24T12:00:00Z"


async def test_logs_that_are_followed(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.console = b"then\n"
    process = await nexusctl.start("vm", "logs", "hello", "--follow")
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"then\n"
        fakes.printed.put_nowait(vmm_pb2.GetConsoleLogResponse(data=b"now\n", dropped_bytes=7))
        assert await process.stdout.readline() == b"now\n"
    fakes.printed.put_nowait(None)
    done = await nexusctl.end(process)
    assert (done.code, done.out) == (0, b"")
    assert "7 bytes or more were lost here" in done.err


async def test_logs_that_are_followed_as_json(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.console = b"then"
    for data in ("ü".encode()[:1], "ü".encode()[1:]):
        fakes.printed.put_nowait(vmm_pb2.GetConsoleLogResponse(data=data))
    fakes.printed.put_nowait(None)
    done = await nexusctl("vm", "logs", "hello", "-f", "--json")
    assert [json.loads(line)["log"] for line in done.out.splitlines()] == ["then", "", "ü"]


async def test_logs_that_are_followed_until_the_service_stops(nexusctl, fakes):
    fakes.add_vm("hello")
    fakes.fail("GetConsoleLog", Unavailable("STOPPING", "vmm is stopping"))
    done = await nexusctl("vm", "logs", "hello", "-f")
    assert (done.code, done.err) == (3, "nexusctl: vmm is stopping\n")


async def test_serial_input_is_asked_for_and_changed(nexusctl, fakes):
    await nexusctl("vm", "create", "hello", "--no-network", "--serial-input")
    (vm,) = fakes.vms.values()
    assert vm.spec.serial_input
    assert (await nexusctl("vm", "inspect", "hello", "--json")).json["spec"]["serial_input"] is True
    done = await nexusctl("vm", "update", "hello", "--serial-input", "off", "--json")
    assert done.json["spec"]["serial_input"] is False
    assert list(fakes.requests["UpdateVm"][0].update_mask.paths) == ["serial_input"]


async def test_a_console_needs_a_terminal(nexusctl, fakes):
    fakes.add_vm("hello")
    done = await nexusctl("vm", "console", "hello")
    assert done.code == 2
    assert "no terminal" in done.err
    assert fakes.calls == []


async def test_status_tells_each_service_in_a_row(nexusctl, fakes, served):
    fakes.add_vm("one", READY)
    fakes.add_vm("two")
    done = await nexusctl("status", "--json")
    assert done.code == 0
    assert {row["health"] for row in done.json["services"].values()} == {"serving"}
    assert done.json["services"]["vmm"]["version"] == "0.1.0"
    assert done.json["vms"] == {"total": 2, "by_state": {"ready": 1, "created": 1}}
    text = (await nexusctl("status")).out.decode()
    assert "VMs: 2 (1 ready, 1 created)" in text
    await served.stop("netd")
    one_down = await nexusctl("status")
    assert one_down.code == 3
    rows = [line.split()[:2] for line in one_down.out.decode().splitlines()[1:5]]
    assert rows == [
        ["netd", "unreachable"],
        ["vmm", "serving"],
        ["gateway", "serving"],
        ["dns", "serving"],
    ]


async def test_status_tells_what_vmm_depends_on(nexusctl, fakes, served):
    done = await nexusctl("status")
    assert done.code == 0
    rows = [line.split() for line in done.out.decode().splitlines()[5:8]]
    assert rows == [
        ["SUBSYSTEM", "HEALTH", "DETAIL"],
        ["store", "ok", "fine"],
        ["kvm", "ok", "fine"],
    ]
    fakes.subsystems["kvm"] = "the kernel offers\x1b[2J no /dev/kvm"
    done = await nexusctl("status")
    assert done.code == 1
    assert "kvm        not ok  the kernel offers?[2J no /dev/kvm\n" in done.out.decode()
    shown = (await nexusctl("status", "--json")).json
    assert shown["services"]["vmm"]["health"] == "serving"
    assert shown["subsystems"] == {
        "store": {"ok": True, "detail": "fine"},
        "kvm": {"ok": False, "detail": "the kernel offers\x1b[2J no /dev/kvm"},
    }
    await served.stop("gateway")
    assert (await nexusctl("status")).code == 3, "a service that is away counts for more"


async def test_status_asks_a_vmm_that_is_not_well_what_is_wrong(nexusctl, fakes, served):
    fakes.subsystems["store"] = "malformed"
    fakes.fail("ListVms", FailedPrecondition("VM_STATE", "no store, no list"))
    await served.health["vmm"].enter_graceful_shutdown()
    done = await nexusctl("status", "--json")
    assert done.code == 1
    assert done.json["services"]["vmm"]["health"] == "not serving"
    assert done.json["services"]["vmm"]["note"] == "no store, no list"
    assert done.json["subsystems"]["store"] == {"ok": False, "detail": "malformed"}
    assert done.json["vms"] is None


async def test_status_tells_what_stands_in_the_way_of_the_network_once(nexusctl, fakes):
    for name in ("default", "lab"):
        network = fakes.wires.networks.setdefault(name, netd_pb2.Network(name=name))
        network.warnings.append("UFW drops\x1b[2J what guests send")
    done = await nexusctl("status")
    assert done.code == 0, "the services are well"
    assert done.out.decode().endswith("\nwarning: UFW drops?[2J what guests send\n")
    shown = (await nexusctl("status", "--json")).json
    assert shown["network_warnings"] == ["UFW drops\x1b[2J what guests send"]


async def test_status_of_a_resolver_that_is_down(nexusctl, served):
    await served.stop("dns")
    done = await nexusctl("status", "--json")
    assert (done.code, done.json["services"]["dns"]["health"]) == (3, "unreachable")
    assert done.json["network_warnings"] == []


async def test_status_of_a_service_that_answers_and_is_not_well(nexusctl, served):
    await served.health["netd"].enter_graceful_shutdown()
    done = await nexusctl("status", "--json")
    assert done.code == 1
    assert done.json["services"]["netd"]["health"] == "not serving"


async def test_status_with_nothing_there(nexusctl, served):
    for name in ("vmm", "netd", "gateway"):
        await served.stop(name)
    done = await nexusctl("status", "--json")
    assert done.code == 3
    assert done.json["vms"] is None
    assert done.json["subsystems"] is None


async def test_version(nexusctl, served):
    done = await nexusctl("version", "--json")
    assert done.json == {
        "nexusctl": "0.1.0",
        "vmm": "0.1.0",
        "firecracker": "1.15.0",
        "images": ["alpine", "debian"],
        "kernels": ["default"],
    }
    text = await nexusctl("version")
    assert text.out.decode().startswith("nexusctl     0.1.0\n")
    await served.stop("vmm")
    down = await nexusctl("version")
    assert (down.code, down.out) == (3, b"nexusctl     0.1.0\n")


async def test_all_calls_of_a_command_are_one_trace(nexusctl, fakes):
    await nexusctl("vm", "create", "hello")
    traces = {fakes.metadata[call]["traceparent"] for call in fakes.calls}
    assert len(traces) == 1
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await nexusctl("vm", "list", env={"TRACEPARENT": given})
    assert fakes.metadata["ListVms"]["traceparent"] == given


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["vm", "start", "nobody"], 4, "nexusctl vm list"),
        (["vm", "stop", "nobody"], 4, "nexusctl vm list"),
        (["vm", "delete", "nobody", "--yes"], 4, "nexusctl vm list"),
        (["vm", "inspect", "nobody"], 4, "nexusctl vm list"),
        (["vm", "logs", "nobody"], 4, "nexusctl vm list"),
        (["vm", "cp", "nobody:/etc/passwd", "-"], 4, "nexusctl vm list"),
        (["mcp-bridge", "--vm", "nobody"], 4, "nexusctl vm list"),
        (["vm", "exec", "nobody", "--", "cat"], 125, "nexusctl vm list"),
        (["vm", "stop", "idle"], 5, "nexusctl vm inspect idle"),
        (["vm", "start", "busy"], 5, "nexusctl vm inspect busy"),
        (["mcp-bridge", "--vm", "idle"], 5, "nexusctl vm start idle"),
        (["vm", "create", "No_Good"], 1, "No_Good"),
        (["vm", "create", "new", "--cpus", "0"], 1, "1 to 32"),
        (["vm", "create", "new", "--cpus", "99"], 1, "vcpu_count"),
        (["vm", "create", "new", "--image", "none"], 4, "nexusctl version"),
        (["vm", "create", "busy"], 5, "choose another name"),
        (["vm", "create"], 2, "--help"),
        (["vm", "exec", "busy", "ls", "-l"], 125, "put -- before the command"),
    ],
)
async def test_a_mistake_is_told_with_the_way_out(nexusctl, fakes, arguments, code, says):
    fakes.add_vm("idle")
    fakes.add_vm("busy", READY)
    ports = dict(fakes.ports)
    done = await nexusctl(*arguments)
    assert done.code == code, done.err
    assert done.err.startswith("nexusctl: ")
    assert says in done.err
    assert done.out == b""
    assert fakes.ports == ports


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Internal("DEFECT", "it broke"), 1),
        (ResourceExhausted("DISK_FULL", "no room"), 1),
        (Unavailable("GUEST_UNREACHABLE", "no agent"), 1),
        (Unavailable("BUS_DOWN", "systemd is away"), 3),
        (FailedPrecondition("BOOT_FAILED", "no kernel"), 5),
    ],
)
async def test_the_exit_code_is_picked_by_the_error(nexusctl, fakes, error, code):
    fakes.add_vm("hello")
    fakes.fail("StartVm", error)
    done = await nexusctl("vm", "start", "hello")
    assert done.code == code
    assert error.message in done.err


async def test_json_is_json_whatever_stands_in_it(nexusctl, fakes):
    vm = fakes.add_vm("hello", vmm_pb2.VM_STATE_FAILED)
    vm.state_reason = 'quote " and \x1b and \n'
    vm.state = 77
    done = await nexusctl("vm", "inspect", "hello", "--json")
    shown = json.loads(done.out)
    assert shown["state_reason"] == vm.state_reason
    assert shown["state"] == "unknown (77)"


@pytest.mark.parametrize(
    ("argv", "code"), [(["vm", "list"], 1), (["vm", "exec", "hello", "--", "talk"], 125)]
)
async def test_an_output_that_takes_no_more_is_told(nexusctl, fakes, argv, code):
    fakes.add_vm("hello", READY)
    full = os.open("/dev/full", os.O_WRONLY)
    process = await nexusctl.start(*argv, stdout=full)
    os.close(full)
    done = await nexusctl.end(process)
    assert (done.code, "No space left" in done.err) == (code, True)
    assert "Traceback" not in done.err
