"""The driver for Firecracker: each machine in a systemd unit, driven through its API."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_vmm.console.pieces import put_aside
from nexus_vmm.console.reader import last_words
from nexus_vmm.machine.configuration import configuration
from nexus_vmm.machine.disks import (
    discard_home,
    grow_disk,
    make_home,
    remove_home,
    write_machine,
)
from nexus_vmm.machine.firecracker import Api, ApiError, Fault, dial, dial_new, printable
from nexus_vmm.machine.tap import DEVICES, packets, until_free
from nexus_vmm.machine.units import CLD_EXITED
from nexus_vmm.metrics import stage
from nexus_vmm.places import vm_ids
from nexus_vmm.vm import TAKEN, Boot, Exit, Spec, Vm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nexus_vmm.machine.assets import Assets, Files
    from nexus_vmm.machine.units import Unit, Units
    from nexus_vmm.places import Places

_ANSWER_SECONDS = 5.0
"""Within which a Firecracker that works answers a question (a boot takes longer)."""

_TAP_SECONDS = 10.0
"""Within which netd has made a TAP that it is about to make."""

LAUNCH_REFUSED = 77
"""Exit code of the launcher that does not start what it found (EX_NOPERM, sysexits.h)."""

_log = logging.getLogger(__name__)


class FirecrackerDriver:
    """Implements `nexus_vmm.driver.Driver`."""

    def __init__(
        self, units: Units, places: Places, assets: Assets, devices: Path = DEVICES
    ) -> None:
        self._units = units
        self._places = places
        self._assets = assets
        self._devices = devices

    async def create(self, vm_id: str, spec: Spec) -> None:
        """Make the VM's disk."""
        await asyncio.to_thread(self._assets.find, spec)
        await asyncio.to_thread(make_home, self._places, vm_id, spec.disk_mib)
        await asyncio.to_thread(write_machine, self._places, vm_id, spec)

    async def start(self, vm: Vm) -> Boot:
        """Boot the machine."""
        with stage("prepare"):
            await self._units.stop(vm.id)
            files = await asyncio.to_thread(self._prepare, vm)
            await self._await_tap(vm)
        # The socket is awaited while systemd still reports: neither waits for the other.
        dialling = asyncio.create_task(dial_new(self._places.api(vm.id), self._places.uid(vm.id)))
        try:
            with stage("launch"):
                unit = await self._launch(vm.id)
                api = await self._unless_gone(vm.id, dialling)
            return await self._boot(vm, unit, api, files)
        finally:
            await _close(dialling)

    async def ask(self, vm_id: str) -> None:
        """Press Ctrl-Alt-Del."""
        try:
            async with self._api(vm_id) as api:
                await api.act("SendCtrlAltDel")
        except Fault as fault:
            raise Unavailable("FIRECRACKER_SILENT", f"Firecracker refused: {fault}") from fault

    async def signal(self, vm_id: str, number: signal.Signals) -> None:
        """Send a signal to the machine's process, if there is one."""
        with suppress(FailedPrecondition):  # systemd refuses where there is none
            await self._units.kill(vm_id, number)

    async def pause(self, vm_id: str) -> None:
        """Halt the machine's vCPUs."""
        await self._bring_to(vm_id, "Paused", {"state": "Paused"})

    async def resume(self, vm_id: str) -> None:
        """Let the machine's vCPUs run."""
        await self._bring_to(vm_id, "Running", {"state": "Resumed"})

    async def set_balloon(self, vm_id: str, amount_mib: int) -> None:
        """Have the machine's balloon take memory from the guest (firecracker.yaml, /balloon)."""
        try:
            async with self._api(vm_id) as api:
                await api.patch("/balloon", {"amount_mib": amount_mib})
        except Fault as fault:
            raise FailedPrecondition("BALLOON_REFUSED", f"Firecracker refused: {fault}") from fault

    async def kill(self, vm_id: str) -> None:
        """Make sure that no process and nothing else of a run is left."""
        await self._units.stop(vm_id)

    async def wait(self, vm_id: str, boot: str = "") -> Exit:
        """Return how the machine ended, once it has, or has given way to another boot."""
        unit = await self._units.wait(vm_id, boot)
        return _ended(unit) if unit.gone else TAKEN

    async def describe(self, vm_id: str) -> Boot | Exit:
        """Return the process as it is, or how it ended."""
        unit = await self._units.describe(vm_id)
        return _ended(unit) if unit.gone else Boot(unit.invocation, unit.pid, "")

    async def traffic(self, vm: Vm) -> int:
        """Return how many packets the VM's TAP has carried."""
        network = vm.spec.network
        return await asyncio.to_thread(packets, network.tap, self._devices) if network else 0

    async def adopt(self, vm_id: str) -> Boot | None:
        """Return the machine if it booted."""
        unit = await self._units.describe(vm_id)
        if unit.gone:
            return None
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                with closing(await self._dial(vm_id)) as api:
                    info = await api.get("/")
        except (OSError, ApiError, Fault):  # TimeoutError is an OSError
            return None
        if info.get("state") not in ("Running", "Paused"):
            return None
        return Boot(unit.invocation, unit.pid, printable(info.get("vmm_version", "")))

    async def last_words(self, vm_id: str) -> str:
        """Return the last lines of the machine's console as one short line."""
        return await asyncio.to_thread(last_words, self._places.console(vm_id))

    async def delete(self, vm_id: str) -> None:
        """Remove the VM's disk and all else that `create` made."""
        await asyncio.to_thread(remove_home, self._places, vm_id)

    async def discard(self, vm_id: str) -> bool:
        """Remove the VM's disk unless it holds data."""
        return await asyncio.to_thread(discard_home, self._places, vm_id)

    async def inventory(self) -> set[str]:
        """Return the ids of VMs of which anything exists."""
        units = await self._units.loaded()
        homes = await asyncio.to_thread(vm_ids, self._places.vms_dir)
        return units | homes

    async def _bring_to(self, vm_id: str, state: str, change: dict[str, str]) -> None:
        """Make `change` (see /vm in firecracker.yaml), unless the machine is in `state` already."""
        try:
            async with self._api(vm_id) as api:
                if (await api.get("/")).get("state") != state:
                    await api.patch("/vm", change)
        except Fault as fault:
            raise FailedPrecondition("PAUSE_REFUSED", f"Firecracker refused: {fault}") from fault

    @asynccontextmanager
    async def _api(self, vm_id: str) -> AsyncIterator[Api]:
        """Yield the API of a machine that runs. Raises Unavailable (FIRECRACKER_SILENT)."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                with closing(await self._dial(vm_id)) as api:
                    yield api
        except (OSError, ApiError) as error:  # TimeoutError is an OSError
            raise Unavailable(
                "FIRECRACKER_SILENT", f"Firecracker does not answer: {str(error) or 'it hangs'}"
            ) from error

    async def _dial(self, vm_id: str) -> Api:
        return await dial(self._places.api(vm_id), self._places.uid(vm_id))

    def _prepare(self, vm: Vm) -> Files:
        """Return what the machine boots from, with all that the launcher needs there. Blocks."""
        files = self._assets.find(vm.spec)
        disk = self._places.disk(vm.id)
        if disk.exists():
            self._grow(vm)
        elif vm.boot:
            raise _boot_failed(f"its disk is gone: {disk}; put it back, or delete the VM")
        else:
            # A power loss may have taken a fresh disk, which holds nothing yet.
            make_home(self._places, vm.id, vm.spec.disk_mib)
        write_machine(self._places, vm.id, vm.spec)
        self._make_room_for_console(vm)
        return files

    def _grow(self, vm: Vm) -> None:
        """Give the disk the size that the record has for it by now. Blocks."""
        try:
            grow_disk(self._places, vm.id, vm.spec.disk_mib)
        except OSError as error:
            raise _boot_failed(f"its disk cannot be made larger: {error}") from error

    async def _await_tap(self, vm: Vm) -> None:
        """Wait for netd, which makes the TAPs anew after a boot of the host."""
        if vm.spec.network is None:
            return
        tap = vm.spec.network.tap
        uid = self._places.uid(vm.id)
        if left := await until_free(tap, uid, _TAP_SECONDS, self._devices):
            raise _boot_failed(f"its TAP {tap}: {left}")

    def _make_room_for_console(self, vm: Vm) -> None:
        """Put what earlier boots printed aside. Blocks."""
        try:
            put_aside(self._places.console(vm.id))
        except OSError as error:  # no reason not to start: the log stays bounded
            _log.warning("VM %s: its console log cannot be put aside: %s", vm.id, error)

    async def _launch(self, vm_id: str) -> Unit:
        try:
            return await self._units.start(vm_id)
        except FailedPrecondition as error:
            raise _boot_failed(error.message) from error

    async def _unless_gone(self, vm_id: str, dialling: asyncio.Task[Api]) -> Api:
        """Return the API, or say how the process ended before it listened."""
        ending = asyncio.create_task(self._units.wait(vm_id))
        try:
            await asyncio.wait({dialling, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                raise _boot_failed(f"before it took a request, {_ended(ending.result()).reason}")
            return dialling.result()
        except OSError as error:
            raise _boot_failed(f"its API socket cannot be used: {error}") from error
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _boot(self, vm: Vm, unit: Unit, api: Api, files: Files) -> Boot:
        """Configure and start the machine behind `api`."""
        try:
            with stage("configure"):
                info = await api.get("/")
                await api.put_all(configuration(vm, files, self._assets.directory))
            with stage("boot"):
                await api.act("InstanceStart")
        except Fault as fault:
            raise _boot_failed(f"Firecracker refused {fault.path}: {fault}") from fault
        except ApiError as error:
            now = await self._units.describe(vm.id)
            raise _boot_failed(_ended(now).reason if now.gone else str(error)) from error
        return Boot(unit.invocation, unit.pid, printable(info.get("vmm_version", "")))


async def _close(dialling: asyncio.Task[Api]) -> None:
    dialling.cancel()
    await asyncio.wait({dialling})
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().close()


def _boot_failed(why: str) -> FailedPrecondition:
    return FailedPrecondition("BOOT_FAILED", why)


def _ended(unit: Unit) -> Exit:
    """Return how the process of `unit` ended, from systemd's record of it."""
    if unit.exit_code == 0:
        return Exit("unknown", "the process is gone, and systemd has no record of its end")
    end = _exited(unit.exit_status) if unit.exit_code == CLD_EXITED else _killed(unit)
    return replace(end, time=unit.exit_time)


def _exited(code: int) -> Exit:
    if code == 0:
        why = "the guest shut down or rebooted, and Firecracker ended"
        return Exit("shutdown", why, code=0)
    if code == LAUNCH_REFUSED:
        why = "the launcher refused; journalctl -u nexus-vm@ID says why"
        return Exit("error", why, code=code)
    return Exit("error", f"Firecracker ended with exit code {code}", code=code)


def _killed(unit: Unit) -> Exit:
    number = unit.exit_status
    name = _signal_name(number)
    if unit.result == "oom-kill":
        why = f"the host ran out of memory and the kernel killed Firecracker ({name})"
        return Exit("oom", why, signal=number)
    return Exit("signal", f"Firecracker was ended by {name}", signal=number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
