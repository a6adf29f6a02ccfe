"""A stand-in for systemd on a message bus of its own: shows a `vmm_units.Model` over D-Bus."""

import asyncio
import contextlib
import re

from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from vmm_units import VERSION

NAME = "org.freedesktop.systemd1"
ROOT = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"

CONFIG = """<busconfig><type>system</type><listen>unix:path={path}</listen>
<auth>EXTERNAL</auth><policy context="default"><allow send_destination="*"/>
<allow receive_sender="*"/><allow own="*"/><allow eavesdrop="false"/></policy></busconfig>"""


@contextlib.asynccontextmanager
async def message_bus(directory):
    """Run dbus-daemon for as long as the block; yield its address."""
    path = directory / "bus.sock"
    config = directory / "bus.conf"
    config.write_text(CONFIG.format(path=path))
    daemon = await asyncio.create_subprocess_exec(
        "dbus-daemon",
        f"--config-file={config}",
        "--nofork",
        "--print-address",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        await daemon.stdout.readline()
        yield f"unix:path={path}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            daemon.terminate()
        await daemon.wait()


def unit_path(vm_id):
    return f"{ROOT}/unit/nexus_2dvm_40{vm_id}_2eservice"


def _vm_id(text):
    return re.search(r"(?:nexus-vm@|nexus_2dvm_40)([a-z2-7]{13})", text)[1]


class FakeSystemd:
    """systemd's manager and the units of a model, as far as vmm asks.

    `denies` refuses jobs, `silent` leaves calls without an answer.
    """

    def __init__(self, model):
        self.model = model
        self.denies = False
        self.silent = False
        self.unheard = asyncio.Queue()
        self.state = "running"
        self.calls = []
        self._jobs = 0
        self._tasks = set()
        model.changed.append(self._changed)

    async def connect(self, address):
        self.bus = await MessageBus(bus_address=address).connect()
        self.bus.add_message_handler(self._called)
        await self.bus.request_name(NAME)

    async def close(self):
        await asyncio.gather(*self._tasks)
        self.bus.disconnect()

    def _called(self, message):
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        self.calls.append(message.member)
        if self.silent:
            self.unheard.put_nowait(message.member)
            return True
        if message.interface == PROPERTIES:
            return Message.new_method_return(message, "v", [self._property(message)])
        if message.member == "Subscribe":
            return Message.new_method_return(message)
        if message.member == "ListUnitsByPatterns":
            return Message.new_method_return(message, "a(ssssssouso)", [self._listed()])
        if self.denies:
            return Message.new_error(
                message, "org.freedesktop.DBus.Error.AccessDenied", "Permission denied"
            )
        return self._managed(message)

    def _managed(self, message):
        name = message.body[0]
        vm_id = _vm_id(name)
        if message.member in ("StartUnit", "StopUnit"):
            self._jobs += 1
            job = f"{ROOT}/job/{self._jobs}"
            work = self.model.start if message.member == "StartUnit" else self.model.stop
            task = asyncio.create_task(self._job(job, name, work(vm_id)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return Message.new_method_return(message, "o", [job])
        if message.member == "ResetFailedUnit":
            self.model.forget(vm_id)
            return Message.new_method_return(message)
        if message.member == "KillUnit" and not self.model.describe(vm_id).gone:
            self.model.processes[vm_id].end(-message.body[2])
            return Message.new_method_return(message)
        return Message.new_error(message, f"{NAME}.NoSuchUnit", f"Unit {name} not loaded.")

    async def _job(self, job, name, work):
        try:
            await work
            result = "done"
        except OSError:
            result = "failed"
        self._signal(ROOT, MANAGER, "JobRemoved", "uoss", [1, job, name, result])

    def _values(self, unit):
        return {
            "SubState": Variant("s", unit.state),
            "InvocationID": Variant("ay", bytes.fromhex(unit.invocation)),
            "MainPID": Variant("u", unit.pid),
            "Result": Variant("s", unit.result),
            "ExecMainCode": Variant("i", unit.exit_code),
            "ExecMainStatus": Variant("i", unit.exit_status),
            "ExecMainExitTimestamp": Variant("t", unit.exit_time),
        }

    def _property(self, message):
        of_manager = {"SystemState": self.state, "Version": VERSION}
        if message.body[1] in of_manager:
            return Variant("s", of_manager[message.body[1]])
        return self._values(self.model.describe(_vm_id(message.path)))[message.body[1]]

    def _listed(self):
        return [
            [f"nexus-vm@{vm_id}.service", "", "loaded", "", unit.state, "", "/", 0, "", "/"]
            for vm_id, unit in self.model.units.items()
        ]

    def _changed(self, vm_id):
        values = self._values(self.model.describe(vm_id))
        parts = {
            "Service": (
                *("MainPID", "Result"),
                *("ExecMainCode", "ExecMainStatus", "ExecMainExitTimestamp"),
            ),
            "Unit": ("SubState",),
        }
        for interface, names in parts.items():
            body = [f"{NAME}.{interface}", {name: values[name] for name in names}, []]
            self._signal(unit_path(vm_id), PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    def _signal(self, path, interface, member, signature, body):
        if self.bus.connected:
            self.bus.send(Message.new_signal(path, interface, member, signature, body))
