"""The port to the machine monitor: the same cases against the fake and Firecracker's driver.

Behind the real one are fake units whose process is a stand-in for Firecracker that speaks its API.
"""

import asyncio
import signal
from dataclasses import dataclass, replace

import pytest
import vmm_driver
import vmm_guest
import vmm_units
from vmm_guest import ID

from nexus_rpc.errors import FailedPrecondition, NotFound, Unavailable
from nexus_vmm.machine.microvm import FirecrackerDriver
from nexus_vmm.vm import TAKEN, Boot, Exit


@dataclass
class FakeHost:
    driver: object
    world: object

    def end(self, code):
        reasons = {0: vmm_driver.SHUTDOWN, 5: Exit("error", "exit code 5", code=5)}
        self.world.end(ID, reasons.get(code))

    async def restart(self):
        self.world.restart(ID)

    def lose_image(self):
        self.world.images.clear()

    def write_to_disk(self):
        self.world.written.add(ID)

    def disk_mib(self):
        return self.world.disks[ID]

    def spoil_kernel(self):
        self.world.fault = "InstanceStart: Invalid Elf magic number"

    def say(self, line):
        self.world.words[ID] = line

    def fail_to_launch(self):
        self.world.fails = 7

    def disobey(self):
        self.world.obeys = False

    async def close(self):
        pass


@dataclass
class FirecrackerHost:
    driver: object
    model: object
    places: object
    assets: object

    def end(self, code):
        self.model.processes[ID].end(code)

    async def restart(self):
        await self.model.stop(ID)
        await self.model.start(ID)

    def lose_image(self):
        (self.assets.directory / "images/debian.img").unlink()

    def write_to_disk(self):
        with self.places.disk(ID).open("r+b") as disk:
            disk.write(b"a file system")

    def disk_mib(self):
        return self.places.disk(ID).stat().st_size // 2**20

    def spoil_kernel(self):
        (self.assets.directory / "kernels/default/vmlinux").write_bytes(b"#!/bin/sh")

    def say(self, line):
        (self.places.console(ID) / "log").write_text(line)

    def fail_to_launch(self):
        self.model.launch = vmm_units.fails

    def disobey(self):
        self.model.launch = self.disobedient

    async def close(self):
        await self.model.close()


def fake(_):
    world = vmm_driver.World()
    return FakeHost(vmm_driver.FakeDriver(world), world)


def in_process(directory):
    return firecracker(directory, vmm_units.machines)


def with_processes(directory):
    return firecracker(directory, vmm_units.processes)


def firecracker(directory, launcher):
    places = vmm_guest.places(directory)
    assets = vmm_guest.guest_files(directory / "guest")
    model = vmm_units.Model(launcher(places.run_dir))
    driver = FirecrackerDriver(vmm_units.FakeUnits(model), places, assets)
    host = FirecrackerHost(driver, model, places, assets)
    host.disobedient = launcher(places.run_dir, obeys=False)
    return host


@pytest.fixture(params=[fake, in_process, with_processes])
async def host(request, short_path):
    made = request.param(short_path)
    yield made
    await made.close()


@pytest.fixture(params=[fake, in_process])
async def quick_host(request, short_path):
    made = request.param(short_path)
    yield made
    await made.close()


async def started(host):
    vm = vmm_guest.vm()
    await host.driver.create(vm.id, vm.spec)
    boot = await asyncio.wait_for(host.driver.start(vm), 10)
    return vm, boot


async def test_start_boots(host):
    _, boot = await started(host)
    assert (boot.version, boot.boot != "", boot.pid > 0) == ("1.12.1", True, True)
    now = await host.driver.describe(ID)
    assert isinstance(now, Boot)
    assert (now.boot, now.pid) == (boot.boot, boot.pid)
    assert await host.driver.adopt(ID) == boot
    assert await host.driver.inventory() == {ID}


async def test_a_disk_grows_at_the_start_and_never_shrinks(host):
    vm, _ = await started(host)
    for size, found in ((32, 32), (16, 32)):
        assert await asyncio.wait_for(
            host.driver.start(replace(vm, spec=vmm_guest.spec(disk_mib=size))), 10
        )
        assert host.disk_mib() == found


async def ended(host):
    return await asyncio.wait_for(host.driver.wait(ID), 10)


async def test_a_guest_that_is_asked_shuts_down(host):
    vm, first = await started(host)
    await host.driver.ask(ID)
    end = await ended(host)
    assert (end.cause, end.code, end.signal) == ("shutdown", 0, 0)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await host.driver.ask(ID)
    assert caught.value.reason == "FIRECRACKER_SILENT"
    assert await host.driver.adopt(ID) is None
    assert (await host.driver.start(vm)).boot != first.boot


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_it_and_is_told(host, number):
    host.disobey()
    await started(host)
    await host.driver.ask(ID)
    assert isinstance(await host.driver.describe(ID), Boot)
    for _ in range(2):
        await host.driver.signal(ID, number)
        end = await ended(host)
        assert (end.cause, end.code, end.signal) == ("signal", -1, number)


async def test_a_signal_to_nobody_does_nothing(host):
    await host.driver.signal(ID, signal.SIGTERM)
    assert isinstance(await host.driver.describe(ID), Exit)


async def test_a_vm_without_a_tap_has_no_traffic(host):
    assert await host.driver.traffic(vmm_guest.vm()) == 0
    gone = replace(vmm_guest.NETWORK, tap="nexus-none")
    assert await host.driver.traffic(vmm_guest.vm(spec=vmm_guest.spec(network=gone))) == 0


async def test_pause_and_resume_may_be_repeated(host):
    _, boot = await started(host)
    for call in (host.driver.pause, host.driver.resume, host.driver.pause):
        for _ in range(2):
            await call(ID)
        assert await host.driver.adopt(ID) == boot
    # Nobody is there to shut down.
    await host.driver.ask(ID)
    assert await host.driver.adopt(ID) == boot


async def test_the_balloon_of_a_machine_is_set(host):
    vm = vmm_guest.vm(spec=vmm_guest.spec(balloon=True))
    await host.driver.create(vm.id, vm.spec)
    boot = await asyncio.wait_for(host.driver.start(vm), 10)
    for amount in (64, 64, 0):
        await host.driver.set_balloon(ID, amount)
    assert await host.driver.adopt(ID) == boot
    await host.driver.kill(ID)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await host.driver.set_balloon(ID, 1)
    assert caught.value.reason == "FIRECRACKER_SILENT"


async def test_a_machine_without_a_balloon_refuses_one(host):
    await started(host)
    with pytest.raises(FailedPrecondition, match="Firecracker refused") as caught:
        await host.driver.set_balloon(ID, 1)
    assert caught.value.reason == "BALLOON_REFUSED"


async def test_pause_of_what_does_not_run(host):
    await started(host)
    await host.driver.kill(ID)
    for call in (host.driver.pause, host.driver.resume):
        with pytest.raises(Unavailable, match="does not answer") as caught:
            await call(ID)
        assert caught.value.reason == "FIRECRACKER_SILENT"


async def test_kill_and_delete_leave_nothing_and_may_be_repeated(host):
    await started(host)
    for _ in range(2):
        await host.driver.kill(ID)
    assert await host.driver.inventory() == {ID}  # its disk
    for _ in range(2):
        await host.driver.delete(ID)
    assert await host.driver.inventory() == set()


async def test_discard_leaves_a_disk_that_was_written(host):
    vm = vmm_guest.vm()
    assert await host.driver.discard(ID)
    await host.driver.create(vm.id, vm.spec)
    assert await host.driver.discard(ID)
    assert await host.driver.inventory() == set()

    await host.driver.create(vm.id, vm.spec)
    host.write_to_disk()
    assert not await host.driver.discard(ID)
    assert await host.driver.inventory() == {ID}


@pytest.mark.parametrize(
    ("code", "told"),
    [(0, ("shutdown", 0, 0)), (5, ("error", 5, 0)), (-9, ("signal", -1, 9))],
)
async def test_wait_tells_the_end(quick_host, code, told):
    await started(quick_host)
    waiting = asyncio.create_task(quick_host.driver.wait(ID))
    await asyncio.sleep(0)
    quick_host.end(code)
    end = await asyncio.wait_for(waiting, 5)
    assert (end.cause, end.code, end.signal) == told


async def test_another_boot_in_its_place_is_an_end(quick_host):
    _, boot = await started(quick_host)
    waiting = asyncio.create_task(quick_host.driver.wait(ID, boot.boot))
    await asyncio.sleep(0)
    await quick_host.restart()
    end = await asyncio.wait_for(waiting, 5)
    # The first process may have been seen to end before the second took its place.
    assert end == TAKEN or end.cause == "signal"
    assert await quick_host.driver.wait(ID, boot.boot) == TAKEN
    assert await quick_host.driver.adopt(ID) is None
    assert (await quick_host.driver.describe(ID)).boot != boot.boot


async def test_an_end_is_remembered_until_kill(host):
    await started(host)
    host.end(-9)
    assert (await asyncio.wait_for(host.driver.wait(ID), 5)).cause == "signal"
    assert (await host.driver.describe(ID)).cause == "signal"
    await host.driver.kill(ID)
    assert (await host.driver.describe(ID)).cause == "unknown"


async def test_create_may_be_repeated(host):
    vm = vmm_guest.vm()
    for _ in range(2):
        await host.driver.create(ID, vm.spec)
    assert await host.driver.inventory() == {ID}


async def test_the_last_words_are_those_of_the_console(host):
    await host.driver.create(ID, vmm_guest.vm().spec)
    assert await host.driver.last_words(ID) == ""
    host.say("Kernel panic")
    assert await host.driver.last_words(ID) == "Kernel panic"


async def test_a_missing_image_is_named(host):
    vm = vmm_guest.vm()
    await host.driver.create(ID, vm.spec)
    host.lose_image()
    for call in (host.driver.create("bbbbbbbbbbbbb", vm.spec), host.driver.start(vm)):
        with pytest.raises(NotFound, match="no image 'debian'") as caught:
            await call
        assert caught.value.reason == "IMAGE_NOT_FOUND"
    assert await host.driver.inventory() == {ID}


async def test_firecrackers_refusal_is_its_own_words(host):
    host.spoil_kernel()
    with pytest.raises(FailedPrecondition, match="Invalid Elf magic number") as caught:
        await started(host)
    assert caught.value.reason == "BOOT_FAILED"
    assert await host.driver.adopt(ID) is None
    await host.driver.kill(ID)
    assert isinstance(await host.driver.describe(ID), Exit)


async def test_a_process_that_ends_before_it_boots(quick_host):
    quick_host.fail_to_launch()
    with pytest.raises(FailedPrecondition, match="exit code 7") as caught:
        await started(quick_host)
    assert caught.value.reason == "BOOT_FAILED"
    await quick_host.driver.kill(ID)
    assert await quick_host.driver.inventory() == {ID}
