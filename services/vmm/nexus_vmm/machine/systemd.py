"""The units of VMs, through systemd's D-Bus interface (org.freedesktop.systemd1(5)).

Signals only say where to look: who waits for a unit reads it anew, after a lost connection too,
so no change is missed, none is believed twice, and nothing is polled.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nexus_rpc.errors import FailedPrecondition, Unavailable
from nexus_vmm.machine.bus import MANAGER, ROOT, SYSTEMD, SystemBus
from nexus_vmm.machine.units import GONE, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbus_fast import Message

_PROPERTIES = "org.freedesktop.DBus.Properties"
_MATCHES = (
    f"type='signal',sender='{SYSTEMD}',member='PropertiesChanged',path_namespace='{ROOT}/unit'",
    f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'",
    f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='UnitRemoved'",
)
# systemd writes each byte of a unit's name but letters and digits as _ and two hex digits.
_UNIT_PATH = f"{ROOT}/unit/nexus_2dvm_40{{}}_2eservice"
_PATH_PATTERN = re.compile(_UNIT_PATH.format("([a-z2-7]{13})"))
_NAME_PATTERN = re.compile(r"nexus-vm@([a-z2-7]{13})\.service")
# In the order of Unit's fields, which is also that of reading: whether it is gone comes first.
_READ = (
    ("Unit", "SubState"),
    ("Unit", "InvocationID"),
    ("Service", "MainPID"),
    ("Service", "Result"),
    ("Service", "ExecMainCode"),
    ("Service", "ExecMainStatus"),
    ("Service", "ExecMainExitTimestamp"),
)
_END = {
    "Result": "result",
    "ExecMainCode": "exit_code",
    "ExecMainStatus": "exit_status",
    "ExecMainExitTimestamp": "exit_time",
}

_STOPPED = ("failed", "dead")
"""States that a job to stop the unit ends in."""

_JOB_SECONDS = 90.0
"""More than TimeoutStartSec and TimeoutStopSec of the unit together."""

_AGAIN_SECONDS = 5.0
"""After which a unit is looked at again for which systemd had no answer."""

_log = logging.getLogger(__name__)


class SystemdUnits:
    """Implements `nexus_vmm.machine.units.Units`. Use `SystemdUnits.open`."""

    def __init__(self) -> None:
        self._bus = SystemBus(_MATCHES, self._heard, self._look_again)
        # All three hold only what someone waits for. None in a queue: the bus was lost.
        self._jobs: dict[str, asyncio.Queue[tuple[str, str] | None]] = {}
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        # How a unit ended, from signals: systemd forgets one that somebody else stopped at once.
        self._ends: dict[str, dict[str, Any]] = {}

    @classmethod
    async def open(cls) -> SystemdUnits:
        """Connect to the system bus. Raises Unavailable (SYSTEMD_UNREACHABLE)."""
        units = cls()
        await units._bus.connect()
        return units

    async def keep_connected(self) -> None:
        """Connect again whenever the bus goes away, for ever."""
        await self._bus.keep_connected()

    def close(self) -> None:
        """Close the connection."""
        self._bus.close()

    async def start(self, vm_id: str) -> Unit:
        """Start the unit and return it once its process exists."""
        result = await self._job("StartUnit", vm_id)
        if result != "done":
            raise FailedPrecondition("UNIT_FAILED", f"systemd's job to start it ended: {result}")
        return await self.describe(vm_id)

    async def stop(self, vm_id: str) -> None:
        """Make sure that no process of the unit is left, and that systemd forgets it."""
        state = await self._state(vm_id)
        if state == "exited" and await self.host_stops():
            # No process is left. A job would wait for the host's own, which comes after the drain
            # of all VMs, and that waits for this.
            return
        if state not in _STOPPED:
            result = await self._job("StopUnit", vm_id)
            state = await self._state(vm_id)
            if state not in _STOPPED:
                raise FailedPrecondition("UNIT_FAILED", f"systemd's job to stop it ended: {result}")
        if state == "failed":
            await self._manage("ResetFailedUnit", "s", _name(vm_id))

    async def kill(self, vm_id: str, number: signal.Signals) -> None:
        """Send a signal to the unit's main process, SIGKILL to every one, and do not wait."""
        whom = "all" if number is signal.SIGKILL else "main"  # the log writer is to see the end
        await self._manage("KillUnit", "ssi", _name(vm_id), whom, number.value)

    async def describe(self, vm_id: str) -> Unit:
        """Return the unit as it is."""
        state, invocation, *rest = await asyncio.gather(
            *(self._property(vm_id, interface, name) for interface, name in _READ)
        )
        return Unit(state, bytes(invocation).hex(), *rest)

    async def wait(self, vm_id: str, invocation: str = "") -> Unit:
        """Return the unit once it is gone, or in another invocation; at once if it is."""
        with self._woken(vm_id) as woken:
            unseen = ""
            while True:
                woken.clear()
                again = None
                try:
                    if await self._state(vm_id) in GONE:
                        return _with_end(await self.describe(vm_id), self._ends.get(vm_id, {}))
                    if invocation and await self._invocation(vm_id) not in ("", invocation):
                        return await self.describe(vm_id)
                except (Unavailable, FailedPrecondition) as error:
                    # A systemd that was only slow has told all that it will.
                    again = _AGAIN_SECONDS
                    if unseen != error.message:
                        _log.warning("VM %s: its unit cannot be seen: %s", vm_id, error)
                    unseen = error.message
                with suppress(TimeoutError):
                    async with asyncio.timeout(again):
                        await woken.wait()

    async def loaded(self) -> set[str]:
        """Return the ids of VMs whose unit is not stopped."""
        (units,) = await self._manage("ListUnitsByPatterns", "asas", [], ["nexus-vm@*.service"])
        # Each is (name, description, load state, active state, state, ...).
        names = (_NAME_PATTERN.fullmatch(unit[0]) for unit in units if unit[4] != "dead")
        return {match[1] for match in names if match}

    async def version(self) -> str:
        """Return the version of systemd."""
        (value,) = await self._bus.call(ROOT, _PROPERTIES, "Get", "ss", MANAGER, "Version")
        return str(value.value)

    async def host_stops(self) -> bool:
        """Return whether the host is shutting down or rebooting (SystemState of the manager)."""
        (state,) = await self._bus.call(ROOT, _PROPERTIES, "Get", "ss", MANAGER, "SystemState")
        return bool(state.value == "stopping")

    async def _invocation(self, vm_id: str) -> str:
        return bytes(await self._property(vm_id, "Unit", "InvocationID")).hex()

    async def _state(self, vm_id: str) -> str:
        return str(await self._property(vm_id, "Unit", "SubState"))

    async def _property(self, vm_id: str, interface: str, name: str) -> Any:  # noqa: ANN401  # any
        path = _UNIT_PATH.format(vm_id)
        (value,) = await self._bus.call(
            path, _PROPERTIES, "Get", "ss", f"{SYSTEMD}.{interface}", name
        )
        return value.value

    async def _manage(self, member: str, signature: str, *body: object) -> list[Any]:
        return await self._bus.call(ROOT, MANAGER, member, signature, *body)

    async def _job(self, member: str, vm_id: str) -> str:
        """Have systemd do a job with the unit and return the job's result."""
        # Before the call: the end of a short job may be heard before its beginning is answered.
        ends = self._jobs[vm_id] = asyncio.Queue()
        try:
            (job,) = await self._manage(member, "ss", _name(vm_id), "replace")
            async with asyncio.timeout(_JOB_SECONDS):
                while True:
                    end = await ends.get()
                    if end is None:
                        raise Unavailable("SYSTEMD_UNREACHABLE", f"systemd was lost in {member}")
                    if end[0] == job:
                        return end[1]
        except TimeoutError:
            raise Unavailable(
                "SYSTEMD_UNREACHABLE", f"systemd did not end {member} within {_JOB_SECONDS:g} s"
            ) from None
        finally:
            del self._jobs[vm_id]

    @contextmanager
    def _woken(self, vm_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the unit should be looked at."""
        woken = asyncio.Event()
        self._waiting[vm_id].add(woken)
        try:
            yield woken
        finally:
            self._waiting[vm_id].discard(woken)
            if not self._waiting[vm_id]:
                del self._waiting[vm_id]
                self._ends.pop(vm_id, None)

    def _heard(self, message: Message) -> None:
        match message.member:
            case "JobRemoved":
                _, job, name, result = message.body
                self._job_ended(name, job, result)
            case "UnitRemoved":
                self._unit_changed(message.body[1], {})
            case "PropertiesChanged":
                self._unit_changed(message.path or "", message.body[1])

    def _job_ended(self, name: str, job: str, result: str) -> None:
        unit = _NAME_PATTERN.fullmatch(name)
        if unit and unit[1] in self._jobs:
            self._jobs[unit[1]].put_nowait((job, result))

    def _unit_changed(self, path: str, values: dict[str, Any]) -> None:
        unit = _PATH_PATTERN.fullmatch(path)
        if unit is None or unit[1] not in self._waiting:
            return
        known = self._ends.setdefault(unit[1], {})
        known.update({_END[name]: values[name].value for name in _END.keys() & values.keys()})
        for woken in self._waiting[unit[1]]:
            woken.set()

    def _look_again(self) -> None:
        for ends in self._jobs.values():
            ends.put_nowait(None)
        for waiting in self._waiting.values():
            for woken in waiting:
                woken.set()


def _name(vm_id: str) -> str:
    return f"nexus-vm@{vm_id}.service"


def _with_end(unit: Unit, end: dict[str, Any]) -> Unit:
    """Return `unit` with how it ended, where systemd has forgotten that already."""
    return unit if unit.exit_code else replace(unit, **end)
