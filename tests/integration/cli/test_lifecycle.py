"""What makes, changes, starts, stops and deletes VMs, against the services in memory."""

import pytest

from nexus.vmm.v1 import vmm_pb2
from nexus_rpc.errors import (
    DeadlineExceeded,
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
    larger = ("--memory", "1G", "--disk", "8G")
    told = (await nexusctl("vm", "update", "hello", *larger, "--json")).json
    assert (told["spec"]["memory_mib"], told["spec"]["disk_mib"]) == (1024, 8192)
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
