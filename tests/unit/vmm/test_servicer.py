"""The API over a real gRPC server in this process, with fakes behind the driver's port."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
from importlib.metadata import version

import grpc
import pytest
import vmm_driver
import vmm_guest
from google.protobuf.field_mask_pb2 import FieldMask
from vmm_guest import ID

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.interceptors import AroundCalls, errors
from nexus_vmm import consoles
from nexus_vmm.admission import Admission
from nexus_vmm.balloon import Balloons
from nexus_vmm.calls import Request
from nexus_vmm.consoles import Consoles
from nexus_vmm.health import Health, Unwell
from nexus_vmm.servicer import VmServicer
from nexus_vmm.setting_store import SettingStore
from nexus_vmm.store import Store
from nexus_vmm.supervisor import Supervisor
from nexus_vmm.watch import RECENT, Hub
from nexus_vmm.work import Work

FIXED = pb.RestartPolicy(delay=pb.RESTART_DELAY_FIXED)
RESTART = FieldMask(paths=["restart"])
RESTART_SECONDS = "spec.restart.fixed_seconds"


def saying(host, name):
    """Return a check that says what `host.health` has."""

    async def check():
        if isinstance(host.health[name], Exception):
            raise host.health[name]
        return host.health[name]

    return check


@contextlib.asynccontextmanager
async def serving(directory, host):
    async with asyncio.TaskGroup() as tasks:
        hub = Hub()
        store = Store(host.database, hub, Admission(host.room))
        await store.fill_hub()
        driver, work = vmm_driver.FakeDriver(host.world), Work(tasks)
        supervisor = Supervisor(store, driver, work)
        places = vmm_guest.places(directory)
        assets = vmm_guest.guest_files(directory / "guest")
        host.health = {"store": "written", "kvm": Unwell("no KVM")}
        health = Health({name: saying(host, name) for name in host.health})
        served = Consoles(places)
        server = grpc.aio.server(interceptors=[AroundCalls(errors)])
        vmm_pb2_grpc.add_VmServiceServicer_to_server(
            VmServicer(
                store,
                hub,
                supervisor,
                assets,
                places,
                settings=SettingStore(host.database),
                balloons=Balloons(store, driver, work),
                consoles=served,
                health=health,
            ),
            server,
        )
        server.add_insecure_port(f"unix:{directory}/vmm.sock")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{directory}/vmm.sock") as channel:
            stub = vmm_pb2_grpc.VmServiceStub(channel)
            stub.places = places
            stub.hub = hub
            stub.consoles = served
            yield stub
        await server.stop(None)
        for vm_id in list(host.world.processes):
            host.world.end(vm_id)


@pytest.fixture
async def vmm(short_path, host):
    async with serving(short_path, host) as stub:
        yield stub


async def refusal(call):
    """Return the domain error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (everything(call) if hasattr(call, "__aiter__") else call)
    return from_rpc_error(caught.value)


async def everything(call):
    """Return all that a stream brings."""
    return [answer async for answer in call]


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


@pytest.mark.parametrize(("tail", "size"), [(0, 200_000), (70_000, 70_000)])
async def test_the_console_is_streamed_in_pieces(vmm, tail, size):
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello"))).vm
    text = bytes(range(250)) * 800
    vmm.places.console(vm.id).mkdir(parents=True)
    (vmm.places.console(vm.id) / "log").write_bytes(text)
    request = pb.GetConsoleLogRequest(vm="hello", tail_bytes=tail)
    pieces = [answer.data for answer in await everything(vmm.GetConsoleLog(request))]
    assert b"".join(pieces) == text[-size:]
    assert max(map(len, pieces)) == 64 * 1024


async def test_a_vm_that_never_ran_has_an_empty_console(vmm):
    await vmm.CreateVm(pb.CreateVmRequest(name="hello"))
    assert await everything(vmm.GetConsoleLog(pb.GetConsoleLogRequest(vm="hello"))) == []
    error = await refusal(vmm.GetConsoleLog(pb.GetConsoleLogRequest(vm="nobody")))
    assert error.reason == "VM_NOT_FOUND"


async def test_a_console_is_followed_until_its_vm_is_gone(vmm):
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello"))).vm
    console = vmm.places.console(vm.id)
    console.mkdir(parents=True)
    (console / "log").write_bytes(b"a\nb\n")
    call = vmm.GetConsoleLog(pb.GetConsoleLogRequest(vm="hello", tail_lines=1, follow=True))
    async with asyncio.timeout(20):
        assert (await call.read()).data == b"b\n"
        with (console / "log").open("ab") as log:
            log.write(b"c\n")
        assert (await call.read()).data == b"c\n"
        shutil.rmtree(console)
        assert await call.read() is grpc.aio.EOF


async def test_one_that_gives_up_following_makes_room_for_another(vmm, monkeypatch):
    class Places(dict):
        left = asyncio.Event()

        def __delitem__(self, key):
            super().__delitem__(key)
            self.left.set()

    monkeypatch.setattr(consoles, "FOLLOWERS", 1)
    vmm.consoles._followers = Places()
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello"))).vm
    vmm.places.console(vm.id).mkdir(parents=True)
    (vmm.places.console(vm.id) / "log").write_bytes(b"x")
    request = pb.GetConsoleLogRequest(vm="hello", follow=True)
    async with asyncio.timeout(20):
        for _ in range(3):
            vmm.consoles._followers.left.clear()
            call = vmm.GetConsoleLog(request)
            assert (await call.read()).data == b"x"
            assert (await refusal(vmm.GetConsoleLog(request))).reason == "TOO_MANY_FOLLOWERS"
            call.cancel()
            await vmm.consoles._followers.left.wait()


async def test_typing_into_a_console(vmm):
    spec = pb.VmSpec(serial_input=True)
    vm = (await vmm.CreateVm(pb.CreateVmRequest(name="hello", spec=spec))).vm
    request = pb.WriteConsoleRequest(vm="hello", data=b"ls\r")
    assert (await refusal(vmm.WriteConsole(request))).reason == "VM_STATE"
    await vmm.StartVm(pb.StartVmRequest(vm="hello"))
    assert (await refusal(vmm.WriteConsole(request))).reason == "VM_STATE"  # no process reads
    vmm.places.run(vm.id).mkdir(parents=True, exist_ok=True)
    os.mkfifo(vmm.places.serial(vm.id))
    guest = os.open(vmm.places.serial(vm.id), os.O_RDWR)
    await vmm.WriteConsole(request)
    assert os.read(guest, 100) == b"ls\r"
    os.close(guest)


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
