"""SettingsService: converts between the proto and the settings, and does nothing else."""

# ruff: noqa: ARG002, N802  # gRPC gives request and context to every handler; the proto names them

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from nexus.vmm.v1 import settings_pb2, settings_pb2_grpc
from nexus_rpc.errors import invalid_field
from nexus_vmm.api.convert import to_time
from nexus_vmm.calls import Request
from nexus_vmm.config import table as config

if TYPE_CHECKING:
    from nexus_vmm.config.store import SettingStore
    from nexus_vmm.config.versions import Version

NAME = "nexus.vmm.v1.SettingsService"

_LONGEST = 2**63 - 1  # what SQLite can compare

Context = grpc.aio.ServicerContext[Any, Any]


class SettingsServicer(settings_pb2_grpc.SettingsServiceServicer):
    """Serves `nexus.vmm.v1.SettingsService`; its proto is the manual."""

    def __init__(self, settings: SettingStore) -> None:
        self._settings = settings

    async def ListSettings(
        self, request: settings_pb2.ListSettingsRequest, context: Context
    ) -> settings_pb2.ListSettingsResponse:
        """List all settings with their values."""
        version = await self._settings.newest()
        return settings_pb2.ListSettingsResponse(settings=_all(version), version=version.number)

    async def UpdateSettings(
        self, request: settings_pb2.UpdateSettingsRequest, context: Context
    ) -> settings_pb2.UpdateSettingsResponse:
        """Change settings, all or none."""
        if not request.values:
            raise invalid_field("values", {}, "at least one")
        version = await self._settings.update(
            Request(request.request_id, "UpdateSettings", request),
            request.values,
            request.expected_version,
        )
        return settings_pb2.UpdateSettingsResponse(settings=_all(version), version=version.number)

    async def ListSettingVersions(
        self, request: settings_pb2.ListSettingVersionsRequest, context: Context
    ) -> settings_pb2.ListSettingVersionsResponse:
        """List the versions, the newest first."""
        versions = await self._settings.versions()
        return settings_pb2.ListSettingVersionsResponse(versions=map(_version, versions))

    async def RollbackSettings(
        self, request: settings_pb2.RollbackSettingsRequest, context: Context
    ) -> settings_pb2.RollbackSettingsResponse:
        """Bring the values of an earlier version back."""
        version = await self._settings.roll_back(
            Request(request.request_id, "RollbackSettings", request),
            min(request.version, _LONGEST),
        )
        return settings_pb2.RollbackSettingsResponse(settings=_all(version), version=version.number)


def _all(version: Version) -> list[settings_pb2.Setting]:
    told = config.told(dict(version.values))
    return [
        settings_pb2.Setting(
            name=name,
            value=told[name],
            default_value=setting.default,
            unit=setting.unit,
            range=setting.kind.range,
            description=setting.description,
        )
        for name, setting in sorted(config.TABLE.items())
    ]


def _version(version: Version) -> settings_pb2.SettingVersion:
    return settings_pb2.SettingVersion(
        version=version.number,
        time=to_time(version.time),
        changes=[
            settings_pb2.SettingChange(name=change.name, old_value=change.old, new_value=change.new)
            for change in version.changes
        ],
        rolled_back_to=version.back_to,
    )
