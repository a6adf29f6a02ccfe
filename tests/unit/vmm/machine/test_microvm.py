"""The driver for Firecracker: directories, a process that hangs, and systemd failing."""

import asyncio
import os
import signal
from dataclasses import replace

import pytest
import vmm_firecracker
import vmm_guest
import vmm_units
from vmm_guest import ID

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_vmm.machine import microvm
from nexus_vmm.machine.microvm import FirecrackerDriver
from nexus_vmm.vm import Network

DRIVES = {
    "image": "/guest/images/debian.img",
    "overlay": "/disk",
    "runtime": "/guest/runtime.img",
}


class Setup:
    def __init__(self, directory):
        self.places = vmm_guest.places(directory)
        self.assets = vmm_guest.guest_files(directory / "guest")
        self.model = vmm_units.Model(vmm_units.machines(self.places.run_dir))
        self.units = vmm_units.FakeUnits(self.model)
        self.devices = directory / "net"
        self.driver = FirecrackerDriver(self.units, self.places, self.assets, self.devices)
        self.vm = vmm_guest.vm()


@pytest.fixture
async def setup(short_path):
    setup = Setup(short_path)
    await setup.driver.create(ID, setup.vm.spec)
    yield setup
    setup.units.down = False
    await setup.model.close()


async def test_firecracker_is_told_of_files_as_its_jail_has_them(setup):
    await setup.driver.start(setup.vm)
    resources = setup.model.processes[ID].resources
    kernel = "/guest/kernels/default"
    boot = resources["/boot-source"]
    assert (boot["kernel_image_path"], boot["initrd_path"]) == (
        f"{kernel}/vmlinux",
        f"{kernel}/initrd",
    )
    drives = {name: resources[f"/drives/{name}"]["path_on_host"] for name in DRIVES}
    assert drives == DRIVES
    assert resources["/vsock"]["uds_path"] == "vsock/agent.sock"
    assert setup.places.vsock(ID).is_socket()


async def test_what_earlier_boots_printed_is_put_aside(setup):
    console = setup.places.console(ID)
    (console / "log").write_text("the last boot")
    await setup.driver.start(setup.vm)
    assert {path.name: path.read_text() for path in console.iterdir()} == {"old.1": "the last boot"}


async def test_a_console_that_cannot_be_put_aside_is_no_reason_not_to_start(setup, caplog):
    console = setup.places.console(ID)
    (console / "log").write_text("the last boot")
    (console / "old.1").mkdir()
    await setup.driver.start(setup.vm)
    assert "its console log cannot be put aside" in caplog.text


@pytest.mark.parametrize("serial", [False, True])
async def test_the_launcher_is_told_of_the_limits(setup, serial):
    spec = vmm_guest.spec(vcpu_count=2, memory_mib=256, serial_input=serial)
    await setup.driver.start(vmm_guest.vm(spec=spec))
    assert setup.places.machine(ID).read_text() == f"2 256 {serial:d}\n"


async def test_the_socket_of_another_process_is_not_used(setup):
    """Whoever broke out of Firecracker may put a link in place of its socket."""
    await setup.driver.start(setup.vm)
    object.__setattr__(setup.places, "uid", lambda vm_id: os.getuid() + 1)
    with pytest.raises(Unavailable, match="leads to another's socket"):
        await setup.driver.pause(ID)
    assert await setup.driver.adopt(ID) is None


async def test_a_launcher_that_refuses_is_told(setup):
    async def refuse(vm_id):
        process = vmm_units.Idle()
        process.end(microvm.LAUNCH_REFUSED)
        return process

    setup.model.launch = refuse
    with pytest.raises(FailedPrecondition, match="the launcher refused"):
        await setup.driver.start(setup.vm)


async def test_a_fresh_disk_that_a_power_loss_took_is_made_again(setup):
    setup.places.disk(ID).unlink()
    await setup.driver.start(setup.vm)
    assert setup.places.disk(ID).stat().st_size == setup.vm.spec.disk_mib * 1024 * 1024


@pytest.mark.parametrize("boot", ["", "an earlier boot"])
async def test_a_disk_grows_at_the_start(setup, boot):
    """Without a boot on record too: a start that failed late may have been a boot for the guest."""
    disk = setup.places.disk(ID)
    with disk.open("r+b") as file:
        file.write(b"a file system")
    spec = vmm_guest.spec(disk_mib=32)
    await setup.driver.start(vmm_guest.vm(spec=spec, boot=boot))
    assert disk.stat().st_size == 32 * 1024 * 1024
    assert disk.read_bytes()[:13] == b"a file system"
    # A record of before the growth, put back from a copy, makes it no smaller.
    await setup.driver.start(vmm_guest.vm(boot=boot))
    assert disk.stat().st_size == 32 * 1024 * 1024


async def test_a_disk_that_cannot_grow_is_a_failed_boot(setup, tmp_path):
    disk = setup.places.disk(ID)
    disk.unlink()
    (tmp_path / "elsewhere").touch()
    disk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FailedPrecondition, match="cannot be made larger") as caught:
        await setup.driver.start(setup.vm)
    assert caught.value.reason == "BOOT_FAILED"
    assert not setup.model.processes


async def test_a_used_disk_is_never_made_again(setup):
    setup.places.disk(ID).unlink()
    with pytest.raises(FailedPrecondition, match="its disk is gone"):
        await setup.driver.start(vmm_guest.vm(boot="an earlier boot"))
    assert not setup.places.disk(ID).exists()


async def test_a_process_that_someone_else_started_is_replaced(setup):
    await setup.model.start(ID)
    stray = setup.model.describe(ID)
    assert await setup.driver.adopt(ID) is None
    boot = await setup.driver.start(setup.vm)
    assert boot.boot != stray.invocation


async def test_refusal_by_systemd_is_a_failed_boot(setup):
    setup.units.refuses = "Permission denied"
    with pytest.raises(FailedPrecondition, match="Permission denied") as caught:
        await setup.driver.start(setup.vm)
    assert caught.value.reason == "BOOT_FAILED"


async def test_a_firecracker_that_hangs_is_bounded_by_the_caller(setup):
    setup.model.launch = vmm_units.idle
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await setup.driver.start(setup.vm)
    await setup.driver.kill(ID)
    assert await setup.driver.inventory() == {ID}


async def test_a_firecracker_that_ends_while_it_is_configured(setup):
    launch = setup.model.launch

    async def launch_fragile(vm_id):
        machine = await launch(vm_id)

        async def put(path, body):
            machine.end(148)  # Firecracker's exit code for a bad system call
            await asyncio.sleep(0)

        machine._put = put
        return machine

    setup.model.launch = launch_fragile
    with pytest.raises(FailedPrecondition) as caught:
        await setup.driver.start(setup.vm)
    assert caught.value.reason == "BOOT_FAILED"


async def test_a_firecracker_that_is_not_there_cannot_be_asked(setup):
    await setup.driver.start(setup.vm)
    setup.places.api(ID).unlink()
    with pytest.raises(Unavailable) as caught:
        await setup.driver.ask(ID)
    assert caught.value.reason == "FIRECRACKER_SILENT"


async def test_without_systemd_nothing_is_removed(setup):
    await setup.driver.start(setup.vm)
    setup.units.down = True
    signal_it = setup.driver.signal(ID, signal.SIGTERM)
    for call in (setup.driver.kill(ID), signal_it, setup.driver.inventory()):
        with pytest.raises(Unavailable):
            await call
    assert setup.places.vsock(ID).is_socket()


@pytest.mark.parametrize(
    ("unit", "told", "words"),
    [
        ({"result": "success"}, ("unknown", -1, 0), "no record"),
        ({"exit_code": 1}, ("shutdown", 0, 0), "shut down or rebooted"),
        ({"exit_code": 1, "exit_status": 148}, ("error", 148, 0), "exit code 148"),
        ({"exit_code": 2, "exit_status": 11, "result": "signal"}, ("signal", -1, 11), "SIGSEGV"),
        ({"exit_code": 2, "exit_status": 99, "result": "signal"}, ("signal", -1, 99), "signal 99"),
        ({"exit_code": 2, "exit_status": 9, "result": "oom-kill"}, ("oom", -1, 9), "memory"),
    ],
)
async def test_ends_are_told_in_words_and_numbers(setup, unit, told, words):
    setup.model.units[ID] = vmm_units.Unit("failed", **unit, exit_time=5)
    end = await setup.driver.describe(ID)
    assert (end.cause, end.code, end.signal) == told
    assert end.time == (0 if end.cause == "unknown" else 5)
    assert words in end.reason
    del setup.model.units[ID]


async def test_an_api_that_hangs_is_not_waited_for(setup, monkeypatch):
    monkeypatch.setattr(microvm, "_ANSWER_SECONDS", 0.05)
    await setup.driver.start(setup.vm)
    machine = setup.model.processes[ID]

    async def hang(method, path, body):
        await machine.ended

    machine._answer = hang
    with pytest.raises(Unavailable, match="it hangs"):
        await setup.driver.ask(ID)


async def test_what_refuses_ctrl_alt_del_says_so(setup):
    await setup.driver.start(setup.vm)

    async def refuse(method, path, body):
        return {"fault_message": "no keyboard"}, "400 Bad Request"

    setup.model.processes[ID]._answer = refuse
    with pytest.raises(Unavailable, match="no keyboard"):
        await setup.driver.ask(ID)


async def test_a_version_that_is_none_is_made_fit_to_be_kept(setup, monkeypatch):
    monkeypatch.setattr(vmm_firecracker, "VERSION", "1\ud800\x1b[2J" + "x" * 60_000)
    for boot in (await setup.driver.start(setup.vm), await setup.driver.adopt(ID)):
        assert boot.version.startswith("1  [2Jxxx")
        assert len(boot.version) == 512


def networked(vm):
    network = Network("nexus7", "02:fc:00:00:00:02", "172.16.0.2/12", "172.16.0.1", ())
    return replace(vm, spec=replace(vm.spec, network=network))


async def test_a_start_waits_for_netd_to_let_go_of_the_tap(setup):
    device = setup.devices / "nexus7"
    device.mkdir(parents=True)
    (device / "owner").write_text(f"{setup.places.uid(ID)}\n")
    (device / "tun_flags").write_text("0x1802\n")
    (device / "carrier").write_text("1\n")
    starting = asyncio.create_task(setup.driver.start(networked(setup.vm)))
    await asyncio.sleep(0)
    assert not starting.done()
    assert not setup.model.processes
    (device / "carrier").write_text("0\n")
    await asyncio.wait_for(starting, 10)
    assert setup.model.processes[ID].resources["/network-interfaces/eth0"]


async def test_a_start_without_its_tap_fails_before_anything_runs(setup, monkeypatch):
    monkeypatch.setattr(microvm, "_TAP_SECONDS", 0.05)
    with pytest.raises(FailedPrecondition, match="its TAP nexus7: there is none; netd makes it"):
        await setup.driver.start(networked(setup.vm))
    assert not setup.model.processes
