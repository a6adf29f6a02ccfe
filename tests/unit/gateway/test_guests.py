"""Following guests: control connections, what is known of them, and what vmm hears."""

import asyncio

import pytest
from gateway_doubles import FakeGuest, FakeVmm, agreeable, make_vm, serving_vmm
from gateway_following import CALM, HASTY, VM, following

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_gateway.guest import State, Timing
from nexus_gateway.reports import next_event
from nexus_gateway.vsock import dial
from nexus_guest.wire import Kind
from nexus_rpc.errors import FailedPrecondition

hasty = pytest.mark.parametrize("timing", [HASTY], ids=["hasty"])
NETWORK = pb.NetworkInterface(
    tap="tap0",
    mac="02:fc:00:00:00:01",
    ipv4="172.16.0.2/12",
    gateway="172.16.0.1",
    dns=["1.1.1.1"],
    ipv6="fd00::2/128",
    ipv6_gateway="fd00::1",
    search=["corp.example"],
    mtu=9000,
)
TOLD = {
    "mac": "02:fc:00:00:00:01",
    "ipv4": "172.16.0.2/12",
    "gateway": "172.16.0.1",
    "dns": ["1.1.1.1"],
    "ipv6": "fd00::2/128",
    "ipv6_gateway": "fd00::1",
    "search": ["corp.example"],
    "mtu": 9000,
}


@pytest.fixture
async def vmm(tmp_path):
    fake = FakeVmm()
    fake.put(make_vm(path=tmp_path / "agent.sock"))
    async with serving_vmm(fake, tmp_path / "vmm.sock"):
        yield fake


@pytest.fixture
def timing():
    return CALM


@pytest.fixture
async def world(vmm, tmp_path, timing):
    async with following(vmm, tmp_path / "vmm.sock", timing=timing) as world:
        await world.until(lambda: world.vms.get(VM) is not None)
        yield world


@pytest.fixture
def guest(tmp_path):
    return FakeGuest(tmp_path / "agent.sock", port100=agreeable)


async def test_a_guest_becomes_ready_and_vmm_hears_each_step(world, guest):
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)
        known = world.guest()
    assert known.state is State.READY
    assert (known.kernel, known.os, known.warnings) == ("6.1.0", "Debian", ("no DNS",))
    assert world.vmm.reports == [
        pb.GUEST_EVENT_HELLO,
        pb.GUEST_EVENT_PROVISIONING,
        pb.GUEST_EVENT_READY,
    ]


async def test_a_guest_that_boots_slowly_is_waited_for(world, guest):
    await world.until(lambda: "no connection" in world.guest().reason)
    assert world.guest().state is State.CONNECTING
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)


async def test_a_guest_is_told_its_network_and_name(tmp_path):
    asked = asyncio.Queue()

    async def listens(side):
        while (request := await side.receive()) is not None:
            asked.put_nowait(request.message)
            await side.message(Kind.REPLY)

    fake = FakeVmm()
    fake.put(make_vm(path=tmp_path / "agent.sock", spec=pb.VmSpec(network=NETWORK)))
    async with (
        serving_vmm(fake, tmp_path / "vmm.sock"),
        FakeGuest(tmp_path / "agent.sock", port100=listens),
        following(fake, tmp_path / "vmm.sock"),
        asyncio.timeout(10),
    ):
        assert await asked.get() == {"op": "hello"}
        assert await asked.get() == {"op": "configure", "hostname": "hello", "network": TOLD}
        assert await asked.get() == {"op": "ping"}
        assert await asked.get() == {"op": "ping"}


def moved(fake, address):
    """Give the VM another address, as UpdateNetworkInterface does."""
    vm = pb.Vm()
    vm.CopyFrom(fake.vms[VM])
    vm.spec.network.ipv4 = address
    fake.put(vm)


async def test_a_guest_is_told_at_once_of_each_address_that_is_new(tmp_path):
    asked = asyncio.Queue()
    gate = asyncio.Event()

    async def listens(side):
        while (request := await side.receive()) is not None:
            asked.put_nowait(request.message)
            if request.message.get("network", {}).get("ipv4") == "10.9.0.2/16":
                await gate.wait()
            await side.message(Kind.REPLY)

    fake = FakeVmm()
    fake.put(make_vm(path=tmp_path / "agent.sock", spec=pb.VmSpec(network=NETWORK)))
    never = Timing(ready=60, silence=60, ping=60, attempt=60)
    async with (
        serving_vmm(fake, tmp_path / "vmm.sock"),
        FakeGuest(tmp_path / "agent.sock", port100=listens) as guest,
        following(fake, tmp_path / "vmm.sock", timing=never) as world,
        asyncio.timeout(10),
    ):
        await fake.until(VM, pb.VM_STATE_READY)
        moved(fake, "10.9.0.2/16")
        told = [(await asked.get())["op"] for _ in range(3)]
        assert told == ["hello", "configure", "configure"]
        # What comes while the guest is being told is told next.
        moved(fake, "10.9.0.3/16")
        await world.until(lambda: world.vms.get(VM).spec.network.ipv4 == "10.9.0.3/16")
        gate.set()
        assert (await asked.get())["network"] == TOLD | {"ipv4": "10.9.0.3/16"}
        assert world.guest().state is State.READY
        assert fake.reports.count(pb.GUEST_EVENT_READY) == 1
        assert guest.arrivals.qsize() == 1, "on the one connection"


async def test_a_guest_that_cannot_be_set_up_is_ready_with_a_warning(world, guest):
    async def stubborn(side):
        while (request := await side.receive()) is not None:
            if request.message["op"] == "configure":
                await side.message(Kind.ERROR, reason="GUEST_ERROR", message="no such device")
            else:
                await side.message(Kind.REPLY)

    guest.ports[100] = stubborn
    async with guest:
        await world.until(lambda: world.guest().state is State.READY)
    assert world.guest().warnings == ("no such device",)


@hasty
async def test_a_guest_that_never_answers_is_unreachable_in_time(world):
    began = asyncio.get_running_loop().time()
    await world.vmm.until(VM, pb.VM_STATE_UNREACHABLE)
    assert 0.5 < asyncio.get_running_loop().time() - began < 5
    assert "does not answer" in world.vmm.vms[VM].state_reason


async def silent(side):
    await side.closed()


async def endless_hello(side):
    while True:
        await side.message(Kind.REPLY, boot_id="b")


async def instant_close(side):
    pass


async def garbage(side):
    await side.send(b"\xff" * 4096)
    await side.closed()


async def huge_frame(side):
    await side.send((2 << 30).to_bytes(4, "big"))
    await side.closed()


async def half_a_hello(side):
    await side.receive()
    await side.send(b"\0\0\0\x10\x02{")
    await side.closed()


async def floods_control(side):
    while True:
        await side.frame(Kind.STDOUT, bytes(1 << 20))


@hasty
@pytest.mark.parametrize(
    "script",
    [silent, endless_hello, instant_close, garbage, huge_frame, half_a_hello, floods_control],
)
async def test_a_hostile_guest_costs_only_itself(vmm, world, guest, tmp_path, script):
    vmm.put(make_vm("good", vm_id="b" * 13, path=tmp_path / "good.sock"))
    guest.ports[100] = script
    async with guest, FakeGuest(tmp_path / "good.sock", port100=agreeable):
        await vmm.until("b" * 13, pb.VM_STATE_READY)
        await vmm.until(VM, pb.VM_STATE_UNREACHABLE)
        assert vmm.vms["b" * 13].state == pb.VM_STATE_READY


async def test_a_guest_that_is_lost_at_once_is_dialled_less_and_less(world, guest):
    async def fickle(side):
        for _ in range(2):
            await side.receive()
            await side.message(Kind.REPLY)

    guest.ports[100] = fickle
    async with guest:
        began = asyncio.get_running_loop().time()
        for _ in range(6):
            await guest.arrivals.get()
        # 0.1 s, and each wait 1.3 times the last.
        assert asyncio.get_running_loop().time() - began > 0.9


@hasty
async def test_silence_makes_a_ready_guest_unreachable_and_an_answer_ready_again(world, guest):
    asleep = asyncio.Event()
    awake = asyncio.Event()

    async def dozes(side):
        while (request := await side.receive()) is not None:
            if request.message["op"] == "ping":
                asleep.set()
                await awake.wait()
            await side.message(Kind.REPLY)

    guest.ports[100] = dozes
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)
        await asleep.wait()
        await world.vmm.until(VM, pb.VM_STATE_UNREACHABLE)
        awake.set()
        await world.vmm.until(VM, pb.VM_STATE_READY)


async def test_a_lost_connection_is_taken_up_before_the_guest_counts_as_lost(world, guest):
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)
    async with guest:
        await world.until(lambda: world.guest().state is not State.READY)
        await world.until(lambda: world.guest().state is State.READY)
    assert pb.GUEST_EVENT_LOST not in world.vmm.reports


async def test_the_connection_ends_with_the_vm(world, guest):
    gone = asyncio.Event()

    async def watches(side):
        await agreeable(side)
        gone.set()

    guest.ports[100] = watches
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)
        world.vmm.change(VM, state=pb.VM_STATE_STOPPED)
        async with asyncio.timeout(10):
            await gone.wait()
    assert world.guests.count() == {}


async def test_a_new_boot_starts_afresh(world, guest):
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)
        world.vmm.change(VM, state=pb.VM_STATE_RUNNING, boot="boot-2")
        await world.vmm.until(VM, pb.VM_STATE_READY)
        assert world.guest().boot == "boot-2"


async def test_vmm_that_was_down_hears_all_once_it_is_back(tmp_path, guest):
    fake = FakeVmm()
    fake.put(make_vm(path=tmp_path / "agent.sock"))
    path = tmp_path / "vmm.sock"
    refused = asyncio.Event()

    class Deaf(FakeVmm):
        async def ReportGuest(self, request, context):
            refused.set()
            raise FailedPrecondition("STALE_BOOT", "not now")

    deaf = Deaf()
    deaf.vms = fake.vms
    async with serving_vmm(deaf, path):
        world = following(fake, path)
        known = await world.__aenter__()
        async with guest:
            await known.until(lambda: known.vms.get(VM) and known.guest().state is State.READY)
            await refused.wait()
    try:
        async with guest, serving_vmm(fake, path):
            await fake.until(VM, pb.VM_STATE_READY)
    finally:
        await world.__aexit__(None, None, None)


async def test_a_gateway_that_restarts_tells_vmm_nothing_new(vmm, guest, tmp_path):
    async with guest:
        for _ in range(2):
            async with following(vmm, tmp_path / "vmm.sock") as world:
                await world.until(lambda world=world: world.vms.get(VM) is not None)
                await world.until(lambda world=world: world.guest().state is State.READY)
                await vmm.until(VM, pb.VM_STATE_READY)
    assert len(vmm.reports) == 3


async def test_ready_waits_and_ends_with_the_vm(world, guest):
    waiting = asyncio.create_task(world.guests.ready("hello"))
    async with guest:
        assert (await waiting).state is State.READY
    world.vmm.change(VM, state=pb.VM_STATE_RUNNING, boot="boot-2")
    waiting = asyncio.create_task(world.guests.ready(VM))
    await world.until(lambda: world.vms.get(VM).boot == "boot-2")
    assert "CONNECTING" in world.guests.why_not_ready("hello")
    world.vmm.change(VM, state=pb.VM_STATE_CRASHED)
    with pytest.raises(FailedPrecondition) as caught:
        await waiting
    assert caught.value.reason == "VM_NOT_LIVE"


@hasty
async def test_a_paused_guest_is_let_go_and_is_ready_again_once_it_runs(world, guest):
    async with guest:
        await world.vmm.until(VM, pb.VM_STATE_READY)
        world.vmm.change(VM, state=pb.VM_STATE_PAUSED)
        await world.until(lambda: VM not in world.guests._known)
        assert VM not in world.guests._following  # so nobody calls it lost
        with pytest.raises(FailedPrecondition, match="resume it first"):
            await world.guests.ready(VM)
        world.vmm.change(VM, state=pb.VM_STATE_RUNNING)
        assert (await world.guests.ready(VM)).state is State.READY
        await world.vmm.until(VM, pb.VM_STATE_READY)


async def test_ready_waits_for_vmm_too(tmp_path, guest):
    fake = FakeVmm()
    fake.put(make_vm(path=tmp_path / "agent.sock"))
    path = tmp_path / "vmm.sock"
    async with guest, following(fake, path) as world:
        waiting = asyncio.create_task(world.guests.ready("hello"))
        await world.changed.wait()
        assert "vmm does not answer" in world.guests.why_not_ready("hello")
        async with serving_vmm(fake, path):
            assert (await waiting).state is State.READY


async def test_a_defect_met_with_one_guest_costs_no_other(vmm, tmp_path, caplog):
    vmm.put(make_vm("good", vm_id="b" * 13, path=tmp_path / "good.sock"))

    async def breaks(path, port, *, timeout):
        if path.endswith("agent.sock"):
            raise ZeroDivisionError
        return await dial(path, port, timeout=timeout)

    async with (
        FakeGuest(tmp_path / "good.sock", port100=agreeable),
        following(vmm, tmp_path / "vmm.sock", dial=breaks),
    ):
        await vmm.until("b" * 13, pb.VM_STATE_READY)
    assert "following a guest failed" in caplog.text


@pytest.mark.parametrize(
    ("guest", "vm", "event"),
    [
        (State.CONNECTING, pb.VM_STATE_RUNNING, None),
        (State.CONNECTING, pb.VM_STATE_READY, None),
        (State.PROVISIONING, pb.VM_STATE_ONLINE, pb.GUEST_EVENT_PROVISIONING),
        (State.PROVISIONING, pb.VM_STATE_PROVISIONING, None),
        (State.READY, pb.VM_STATE_UNREACHABLE, pb.GUEST_EVENT_HELLO),
        (State.READY, pb.VM_STATE_READY, None),
        (State.READY, pb.VM_STATE_STOPPED, None),
        (State.UNREACHABLE, pb.VM_STATE_READY, pb.GUEST_EVENT_LOST),
        (State.UNREACHABLE, pb.VM_STATE_UNREACHABLE, None),
        (State.UNREACHABLE, pb.VM_STATE_CRASHED, None),
    ],
)
def test_what_vmm_must_hear_next(guest, vm, event):
    assert next_event(guest, vm) == event
