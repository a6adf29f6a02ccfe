"""The composition root: what vmm is made of, and in which order it comes up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from nexus.vmm.v1 import settings_pb2_grpc, vmm_pb2, vmm_pb2_grpc
from nexus_rpc.server import Binding
from nexus_vmm.api import setting_servicer
from nexus_vmm.api.servicer import NAME, VmServicer
from nexus_vmm.api.setting_servicer import SettingsServicer
from nexus_vmm.api.spec import check_spec
from nexus_vmm.config.store import SettingStore
from nexus_vmm.console.consoles import Consoles
from nexus_vmm.limits.admission import Admission
from nexus_vmm.limits.host import LinuxHost
from nexus_vmm.machine.assets import Assets
from nexus_vmm.machine.microvm import FirecrackerDriver
from nexus_vmm.machine.systemd import SystemdUnits
from nexus_vmm.metrics import count_vms, tell_health
from nexus_vmm.operations.balloon import Balloons
from nexus_vmm.operations.reconcile import reconcile
from nexus_vmm.operations.supervisor import Supervisor
from nexus_vmm.operations.work import Work
from nexus_vmm.places import Places
from nexus_vmm.records import rows
from nexus_vmm.records.store import Store
from nexus_vmm.records.watch import Hub
from nexus_vmm.reports.health import Health
from nexus_vmm.reports.stats import Figures
from nexus_vmm.reports.subsystems import checks, statuses
from nexus_vmm.reports.usage import Meter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from nexus_vmm.settings import Settings
    from nexus_vmm.vm import Spec

_RESERVE = 4 * 1024 * 1024
"""Bytes of the disk that are kept back, so that VMs can be stopped and deleted when it is full."""

_HOST_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""A fresh id for each boot of the host (random(4))."""


async def compose(
    settings: Settings, stack: AsyncExitStack, tasks: asyncio.TaskGroup
) -> Sequence[Binding]:
    """Open what the service needs and start its work; see `nexus_rpc.server.main`."""
    places = Places(settings.vms_dir, settings.run_dir)
    assets = Assets(settings.guest_dir)
    hub = Hub()
    database = await rows.open_database(settings.state_dir / "vmm.db", _RESERVE)
    stack.push_async_callback(database.close)
    config = SettingStore(database)
    await config.check()
    store = await Store.open(database, hub, Admission(LinuxHost(settings.vms_dir)))
    units = await SystemdUnits.open()
    stack.callback(units.close)
    tasks.create_task(units.keep_connected())
    driver = FirecrackerDriver(units, places, assets)
    work = Work(tasks)
    supervisor = Supervisor(store, driver, work)
    stack.callback(supervisor.close)
    host_boot = await asyncio.to_thread(_HOST_BOOT.read_text)
    await reconcile(store, driver, supervisor, host_boot.strip())
    tasks.create_task(supervisor.expiry.follow(hub))
    count_vms(hub)
    stack.enter_context(Figures(hub, Meter(places)).served())
    rooms = (settings.vms_dir, settings.state_dir)

    async def default() -> Spec:
        return check_spec(vmm_pb2.VmSpec(), await config.current())

    health = Health(checks(store, rooms, units, assets, default))
    stack.callback(health.close)
    tell_health(health)

    async def serving() -> dict[str, bool]:
        return statuses(NAME, await health.now())

    consoles = Consoles(places)

    def stopping() -> None:
        hub.close()
        consoles.close()

    servicer = VmServicer(
        store,
        hub,
        supervisor,
        assets,
        places,
        settings=config,
        balloons=Balloons(store, driver, work),
        consoles=consoles,
        health=health,
    )
    add = vmm_pb2_grpc.add_VmServiceServicer_to_server
    return [
        Binding(NAME, add, servicer, stopping, serving),
        Binding(
            setting_servicer.NAME,
            settings_pb2_grpc.add_SettingsServiceServicer_to_server,
            SettingsServicer(config),
        ),
    ]
