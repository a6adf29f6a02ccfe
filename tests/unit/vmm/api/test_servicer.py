"""The API over a real gRPC server in this process, with fakes behind the driver's port."""

import sqlite3
from importlib.metadata import version

import grpc
import pytest
import vmm_guest
from google.protobuf.field_mask_pb2 import FieldMask
from vmm_guest import ID
from vmm_server import refusal, serving

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_vmm.calls import Request
from nexus_vmm.config.store import SettingStore
from nexus_vmm.records.store import Store
from nexus_vmm.records.watch import RECENT
from nexus_vmm.reports.health import Unwell

FIXED = pb.RestartPolicy(delay=pb.RESTART_DELAY_FIXED)
RESTART = FieldMask(paths=["restart"])
RESTART_SECONDS = "spec.restart.fixed_seconds"


@pytest.fixture
async def vmm(short_path, host):
    async with serving(short_path, host) as stub:
        yield stub


async def test_the_life_of_a_vm(vmm):
    spec = pb.VmSpec(
        network=pb.NetworkInterface(
            tap="tap0", mac="02:fc:00:00:00:01", ipv4="172.16.0.2/12", gateway="172.16.0.1"
        )
    )
    created = (await vmm.CreateVm(pb.CreateVmRequest(name="hello", spec=spec))).vm
    assert (created.name, created.state, len(created.id)) == ("hello", pb.VM_STATE_CREATED, 13)
    assert (created.spec.vcpu_count, created.spec.image) == (1, "debian")
    assert created.spec.network == spec.network
    assert created.vsock_path == ""
    running = (await vmm.StartVm(pb.StartVmRequest(vm="hello"))).vm
    assert (running.state, running.pid > 0, running.cid) == (pb.VM_STATE_RUNNING, True, 3)
    assert running.vsock_path == str(vmm.places.vsock(created.id))
    report = pb.ReportGuestRequest(vm="hello", boot=running.boot, event=pb.GUEST_EVENT_HELLO)
    assert (await vmm.ReportGuest(report)).vm.state == pb.VM_STATE_ONLINE
    stopped = (await vmm.StopVm(pb.StopVmRequest(vm=created.id))).vm
    assert (stopped.state, stopped.pid, stopped.vsock_path) == (pb.VM_STATE_STOPPED, 0, "")
    told = (await vmm.GetVm(pb.GetVmRequest(vm="hello"))).vm
    assert [step.to for step in told.history] == [
        pb.VM_STATE_RUNNING,
        pb.VM_STATE_ONLINE,
        pb.VM_STATE_STOPPED,
    ]
    assert getattr(told.history[0], "from") == pb.VM_STATE_CREATED
    assert told.history[2].time == told.state_time
    await vmm.DeleteVm(pb.DeleteVmRequest(vm="hello"))
    error = await refusal(vmm.GetVm(pb.GetVmRequest(vm="hello")))
    assert (error.reason, error.metadata) == ("VM_NOT_FOUND", {"vm": "hello"})


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateVmRequest(), "name"),
        (pb.CreateVmRequest(name="Hello"), "name"),
        (pb.CreateVmRequest(name=ID), "name"),
        (pb.CreateVmRequest(name="a", vm_id="short"), "vm_id"),
        (pb.CreateVmRequest(name="a", request_id="x" * 65), "request_id"),
        (pb.CreateVmRequest(name="a", spec=pb.VmSpec(vcpu_count=33)), "spec.vcpu_count"),
        (pb.CreateVmRequest(name="a", spec=pb.VmSpec(image="../x")), "spec.image"),
        (pb.CreateVmRequest(name="a", spec=pb.VmSpec(restart=FIXED)), RESTART_SECONDS),
        (pb.UpdateVmRequest(vm="a"), "update_mask"),
        (pb.UpdateVmRequest(vm="a", update_mask=FieldMask(paths=["cid"])), "update_mask"),
        (pb.UpdateVmRequest(update_mask=RESTART), "vm"),
        (pb.UpdateVmRequest(vm="a", update_mask=RESTART, etag="x" * 65), "etag"),
        (
            pb.UpdateVmRequest(vm="a", update_mask=RESTART, spec=pb.VmSpec(restart=FIXED)),
            RESTART_SECONDS,
        ),
        (pb.StartVmRequest(), "vm"),
        (pb.StopVmRequest(vm="a", grace_seconds=301), "grace_seconds"),
        (pb.DrainVmsRequest(grace_seconds=301), "grace_seconds"),
        (pb.TouchVmRequest(vm="A b"), "vm"),
        (pb.DeleteVmRequest(vm="a b"), "vm"),
        (pb.GetVmRequest(vm="../a"), "vm"),
        (pb.GetConsoleLogRequest(vm=""), "vm"),
        (pb.WriteConsoleRequest(vm="a"), "data"),
        (pb.WriteConsoleRequest(data=b"x"), "vm"),
        (pb.ListVmsRequest(page_size=-1), "page_size"),
        (pb.ListVmsRequest(page_token="!"), "page_token"),
        (pb.ListVmsRequest(page_token="YQ=="), "page_token"),
        (pb.ReportGuestRequest(vm="a"), "event"),
        (pb.ReportGuestRequest(vm="a", event=99), "event"),
        (pb.ReportGuestRequest(vm="a", event=1, reason="x" * 513), "reason"),
        (pb.ReportGuestRequest(vm="a", event=1, boot="x" * 65), "boot"),
    ],
)
async def test_bad_fields_are_named_and_change_nothing(vmm, host, request_, field):
    method = getattr(vmm, type(request_).__name__.removesuffix("Request"))
    error = await refusal(method(request_))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert error.metadata == {"field": field}
    assert vmm.hub.present() == []
    assert not host.world.disks


async def test_refusals_have_their_status(vmm):
    await vmm.CreateVm(pb.CreateVmRequest(name="hello"))
    error = await refusal(vmm.CreateVm(pb.CreateVmRequest(name="hello")))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    error = await refusal(vmm.StopVm(pb.StopVmRequest(vm="hello")))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VM_STATE")
    image = pb.CreateVmRequest(name="other", spec=pb.VmSpec(image="none"))
    error = await refusal(vmm.CreateVm(image))
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")


async def test_pages(vmm):
    names = ["c", "a", "b"]
    for name in names:
        await vmm.CreateVm(pb.CreateVmRequest(name=name))
    first = await vmm.ListVms(pb.ListVmsRequest(page_size=2))
    assert [vm.name for vm in first.vms] == names[:2]
    token = first.next_page_token
    rest = await vmm.ListVms(pb.ListVmsRequest(page_size=2, page_token=token))
    assert ([vm.name for vm in rest.vms], rest.next_page_token) == (names[2:], "")
    everything = await vmm.ListVms(pb.ListVmsRequest(page_size=3))
    assert (len(everything.vms), everything.next_page_token) == (3, "")


async def test_watch_tells_present_and_changes(vmm):
    await vmm.CreateVm(pb.CreateVmRequest(name="hello"))
    call = vmm.WatchVms(pb.WatchVmsRequest())
    assert (await call.read()).vm.name == "hello"
    assert (await call.read()).synced
    await vmm.StartVm(pb.StartVmRequest(vm="hello"))
    assert (await call.read()).vm.state == pb.VM_STATE_RUNNING
    stopped = (await vmm.StopVm(pb.StopVmRequest(vm="hello"))).vm
    assert (await call.read()).vm.stopping
    assert (await call.read()).vm.state == pb.VM_STATE_STOPPED
    await vmm.DeleteVm(pb.DeleteVmRequest(vm="hello"))
    assert (await call.read()).deleted_vm_id == stopped.id
    call.cancel()


async def test_a_watcher_that_does_not_read_slows_nobody_and_is_told_what_is_now(vmm):
    call = vmm.WatchVms(pb.WatchVmsRequest())
    first = (await call.read()).revision + 1
    last = first + 20 * RECENT
    for revision in range(first, last):
        vmm.hub.publish(vmm_guest.vm(change=revision))
        if revision % RECENT == 0:
            await vmm.GetInfo(pb.GetInfoRequest())
    told = []
    while not told or told[-1] < last - 1:
        told.append((await call.read()).revision)
    assert told == sorted(set(told))
    assert len(told) < last - first
    call.cancel()


async def test_a_watch_carries_on_after_a_revision_or_says_what_it_missed(vmm):
    await vmm.CreateVm(pb.CreateVmRequest(name="old"))
    call = vmm.WatchVms(pb.WatchVmsRequest())
    assert (await call.read()).revision == 0
    revision = (await call.read()).revision
    call.cancel()
    await vmm.CreateVm(pb.CreateVmRequest(name="new"))
    call = vmm.WatchVms(pb.WatchVmsRequest(after_revision=revision))
    told = await call.read()
    assert (told.vm.name, told.revision > revision) == ("new", True)
    assert await call.read() == pb.WatchVmsResponse(synced=True, revision=told.revision)
    call.cancel()
    call = vmm.WatchVms(pb.WatchVmsRequest(after_revision=1))
    assert await call.read() == pb.WatchVmsResponse(missed=True)
    assert [(await call.read()).vm.name for _ in range(2)] == ["old", "new"]
    assert (await call.read()).synced
    call.cancel()


async def test_info(vmm):
    info = await vmm.GetInfo(pb.GetInfoRequest())
    assert (info.version, info.firecracker_version) == (version("nexus-vmm"), "")
    assert (list(info.images), list(info.kernels)) == (["debian"], ["default"])
    await vmm.CreateVm(pb.CreateVmRequest(name="hello"))
    await vmm.StartVm(pb.StartVmRequest(vm="hello"))
    assert (await vmm.GetInfo(pb.GetInfoRequest())).firecracker_version == "1.12.1"


async def test_info_tells_how_the_subsystems_are(vmm):
    info = await vmm.GetInfo(pb.GetInfoRequest())
    assert [(one.name, one.ok, one.detail) for one in info.subsystems] == [
        ("store", True, "written"),
        ("kvm", False, "no KVM"),
    ]


async def test_info_does_without_a_store(vmm, host, monkeypatch):
    async def broken(_):
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(Store, "firecracker_version", broken)
    host.health["store"] = Unwell("malformed")
    info = await vmm.GetInfo(pb.GetInfoRequest())
    assert (info.firecracker_version, info.subsystems[0].detail) == ("", "malformed")


async def test_an_interface_is_changed_whole(vmm):
    network = pb.NetworkInterface(
        tap="tap0", mac="02:fc:00:00:00:01", ipv4="172.16.0.2/12", gateway="172.16.0.1"
    )
    await vmm.CreateVm(pb.CreateVmRequest(name="hello", spec=pb.VmSpec(network=network)))
    network.MergeFrom(
        pb.NetworkInterface(
            ipv4="10.9.0.2/16",
            gateway="10.9.0.1",
            dns=["10.9.0.1"],
            ipv6="fd00::2/128",
            ipv6_gateway="fd00::1",
            search=["corp.example"],
            mtu=9000,
        )
    )
    request = pb.UpdateNetworkInterfaceRequest(vm="hello", network=network, request_id="one")
    assert (await vmm.UpdateNetworkInterface(request)).vm.spec.network == network
    assert (await vmm.GetVm(pb.GetVmRequest(vm="hello"))).vm.spec.network == network


async def test_a_vm_is_paused_and_resumed(vmm):
    await vmm.CreateVm(pb.CreateVmRequest(name="hello"))
    running = (await vmm.StartVm(pb.StartVmRequest(vm="hello"))).vm
    paused = (await vmm.PauseVm(pb.PauseVmRequest(vm="hello"))).vm
    assert (paused.state, paused.vsock_path) == (pb.VM_STATE_PAUSED, running.vsock_path)
    error = await refusal(vmm.PauseVm(pb.PauseVmRequest(vm="hello")))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VM_STATE")
    assert (await vmm.ResumeVm(pb.ResumeVmRequest(vm="hello"))).vm.state == pb.VM_STATE_RUNNING


async def test_a_restart_policy_is_told_and_changed(vmm, host):
    policy = pb.RestartPolicy(
        condition=pb.RESTART_CONDITION_ALWAYS, delay=pb.RESTART_DELAY_FIXED, fixed_seconds=3600
    )
    spec = pb.VmSpec(restart=policy)
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello", spec=spec))).vm
    assert (vm.spec.restart, vm.restarts, vm.HasField("next_start_time")) == (policy, 0, False)
    await vmm.StartVm(pb.StartVmRequest(vm="hello"))
    call = vmm.WatchVms(pb.WatchVmsRequest())
    for _ in range(2):
        await call.read()
    host.world.end(vm.id)
    told = (await call.read()).vm
    assert told.state == pb.VM_STATE_CRASHED
    assert told.next_start_time.ToSeconds() - told.state_time.ToSeconds() == 3600
    call.cancel()
    request = pb.UpdateVmRequest(vm="hello", update_mask=RESTART, etag=told.etag)
    updated = (await vmm.UpdateVm(request)).vm
    assert updated.spec.restart.condition == pb.RESTART_CONDITION_NONE
    assert not updated.HasField("next_start_time")
    error = await refusal(vmm.UpdateVm(request))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ETAG_MISMATCH")


async def test_a_bad_interface_is_named(vmm):
    request = pb.UpdateNetworkInterfaceRequest(vm="hello")
    error = await refusal(vmm.UpdateNetworkInterface(request))
    assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", "network.tap")


async def test_the_balloon_of_a_vm_is_set(vmm, host):
    spec = pb.VmSpec(balloon=True)
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello", spec=spec))).vm
    error = await refusal(vmm.SetBalloon(pb.SetBalloonRequest(vm="hello", amount_mib=64)))
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VM_STATE")
    await vmm.StartVm(pb.StartVmRequest(vm="hello"))
    answer = await vmm.SetBalloon(pb.SetBalloonRequest(vm="hello", amount_mib=64))
    assert answer.vm.state == pb.VM_STATE_RUNNING
    assert host.world.processes[vm.id].balloon == 64


async def test_what_room_there_is(vmm, host):
    host.room.memory, host.room.cpus, host.room.disk = 200, 1, 1000
    await vmm.CreateVm(pb.CreateVmRequest(name="one"))
    await vmm.StartVm(pb.StartVmRequest(vm="one"))
    budgets = (await vmm.GetCapacity(pb.GetCapacityRequest())).budgets
    assert [(one.what, one.tag, one.limit, one.used) for one in budgets] == [
        ("memory_mib", "", 200, 128),
        ("vcpus", "", 16, 1),
        ("disk_mib", "", 10_000, 2048),
        ("vms", "", 4000, 1),
    ]
    await vmm.CreateVm(pb.CreateVmRequest(name="two"))
    error = await refusal(vmm.StartVm(pb.StartVmRequest(vm="two")))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "NO_CAPACITY")
    assert error.metadata == {"what": "memory_mib", "asked": "128", "free": "72", "limit": "200"}


async def test_what_is_left_out_is_as_the_settings_have_it(vmm, host):
    values = {"default.memory_mib": "256", "stop.grace_seconds": "0"}
    change = Request("", "UpdateSettings", pb.GetInfoRequest())
    await SettingStore(host.database).update(change, values, 0)
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="one"))).vm
    assert vm.spec.memory_mib == 256
    await vmm.StartVm(pb.StartVmRequest(vm="one"))
    stopped = (await vmm.StopVm(pb.StopVmRequest(vm="one"))).vm
    assert "killed" in stopped.state_reason
