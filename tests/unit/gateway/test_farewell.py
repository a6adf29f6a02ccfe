"""A VM that is being stopped: its agent is asked to shut down, once for each stop."""

import asyncio

import pytest
from gateway_doubles import FakeGuest, FakeVmm, make_vm, serving_vmm
from gateway_following import HASTY, VM, following

from nexus.vmm.v1 import vmm_pb2 as pb
from nexus_gateway import farewell
from nexus_gateway.guest import State
from nexus_guest.wire import Kind


class Agent:
    """A control port that answers; `shut` counts the shutdowns that it was asked for."""

    def __init__(self, *, answer=Kind.REPLY):
        self.shut = asyncio.Queue()
        self.pings = 0
        self.setting_up = asyncio.Event()
        self.set_up = asyncio.Event()
        self.set_up.set()
        self._answer = answer

    async def __call__(self, side):
        while (request := await side.receive()) is not None:
            match request.message["op"]:
                case "shutdown":
                    self.shut.put_nowait(None)
                    if self._answer is None:
                        return
                    await side.message(self._answer, reason="GUEST_ERROR", message="no")
                    continue
                case "configure":
                    self.setting_up.set()
                    await self.set_up.wait()
                case "ping":
                    self.pings += 1
            await side.message(Kind.REPLY)


@pytest.fixture
async def vmm(tmp_path):
    fake = FakeVmm()
    fake.put(make_vm(path=tmp_path / "agent.sock"))
    async with serving_vmm(fake, tmp_path / "vmm.sock"), asyncio.timeout(30):
        yield fake


async def until_stopping_is_known(world):
    await world.until(lambda: (vm := world.vms.get(VM)) is not None and vm.stopping)


async def test_the_agent_is_asked_once(vmm, tmp_path):
    agent = Agent()
    async with (
        FakeGuest(tmp_path / "agent.sock", port100=agent),
        following(vmm, tmp_path / "vmm.sock") as world,
    ):
        await vmm.until(VM, pb.VM_STATE_READY)
        vmm.change(VM, stopping=True)
        await agent.shut.get()
        vmm.change(VM, state_reason="going")  # told again, still stopping
        await world.until(lambda: world.vms.get(VM).state_reason == "going")
        pings = agent.pings
        await world.until(lambda: agent.pings >= pings)
        assert agent.shut.empty()
        assert world.guest().state is State.READY


async def test_it_is_asked_while_it_is_still_being_set_up(vmm, tmp_path):
    agent = Agent()
    agent.set_up.clear()
    async with (
        FakeGuest(tmp_path / "agent.sock", port100=agent),
        following(vmm, tmp_path / "vmm.sock"),
    ):
        await agent.setting_up.wait()
        vmm.change(VM, stopping=True)
        await agent.shut.get()
        agent.set_up.set()


async def test_each_stop_and_each_boot_asks_anew(vmm, tmp_path):
    agent = Agent()
    async with (
        FakeGuest(tmp_path / "agent.sock", port100=agent),
        following(vmm, tmp_path / "vmm.sock") as world,
    ):
        await vmm.until(VM, pb.VM_STATE_READY)
        vmm.change(VM, stopping=True)
        await agent.shut.get()
        vmm.put(make_vm(path=tmp_path / "agent.sock"))  # the stop was given up
        await world.until(lambda: not world.vms.get(VM).stopping)
        vmm.change(VM, stopping=True)
        await agent.shut.get()
        vmm.put(make_vm(path=tmp_path / "agent.sock", boot="boot-2"))
        await vmm.until(VM, pb.VM_STATE_READY)
        assert agent.shut.empty()
        vmm.change(VM, stopping=True)
        await agent.shut.get()
        assert agent.shut.empty()


async def test_a_gateway_that_starts_during_a_stop_asks(vmm, tmp_path):
    agent = Agent()
    vmm.change(VM, stopping=True)
    async with (
        FakeGuest(tmp_path / "agent.sock", port100=agent),
        following(vmm, tmp_path / "vmm.sock"),
    ):
        await agent.shut.get()


async def test_an_agent_that_did_not_hear_is_asked_again(vmm, tmp_path, monkeypatch):
    monkeypatch.setattr(farewell, "_FIRST_WAIT", 0.01)
    agent = Agent(answer=None)
    guest = FakeGuest(tmp_path / "agent.sock", port100=agent)
    async with following(vmm, tmp_path / "vmm.sock") as world:
        vmm.change(VM, stopping=True)
        await until_stopping_is_known(world)
        async with guest:  # only now does anybody listen
            await agent.shut.get()
            await agent.shut.get()
            # It stops, and with it the asking.
            vmm.put(make_vm(path=guest.path, state=pb.VM_STATE_STOPPED))
            await world.until(lambda: VM not in world.guests._known)


async def test_an_agent_that_refuses_is_left_to_vmm(vmm, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(farewell, "_FIRST_WAIT", 0.01)
    agent = Agent(answer=Kind.ERROR)
    async with (
        FakeGuest(tmp_path / "agent.sock", port100=agent),
        following(vmm, tmp_path / "vmm.sock") as world,
    ):
        await vmm.until(VM, pb.VM_STATE_READY)
        vmm.change(VM, stopping=True)
        await agent.shut.get()
        pings = agent.pings
        async with asyncio.timeout(10):
            while agent.pings < pings + 3:  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.01)
        assert agent.shut.empty()
        assert world.guest().state is State.READY
    assert "does not shut down: no" in caplog.text


async def test_a_guest_that_falls_silent_as_it_stops_is_not_lost(vmm, tmp_path):
    agent = Agent()
    async with following(vmm, tmp_path / "vmm.sock", timing=HASTY) as world:
        async with FakeGuest(tmp_path / "agent.sock", port100=agent):
            await vmm.until(VM, pb.VM_STATE_READY)
            vmm.change(VM, stopping=True)
            await agent.shut.get()
        # Nobody listens any more; HASTY calls a guest lost after 0.3 s.
        await asyncio.sleep(3 * HASTY.silence)
        assert world.guest().state is State.CONNECTING
        vmm.put(make_vm(path=tmp_path / "agent.sock", state=pb.VM_STATE_READY))
        await vmm.until(VM, pb.VM_STATE_UNREACHABLE)  # it was told to stay, and does not answer
