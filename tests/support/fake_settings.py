"""SettingsService as nexusctl meets it: three settings, and their versions."""

from nexus.vmm.v1 import settings_pb2, settings_pb2_grpc
from nexus_rpc.errors import FailedPrecondition, InvalidArgument, NotFound

DEFAULTS = {"capacity.vms": "4000", "default.memory_mib": "128", "quota.tags": ""}


class FakeSettings(settings_pb2_grpc.SettingsServiceServicer):
    def __init__(self, fakes):
        self.fakes = fakes
        self.versions = [{}]
        self.log = []

    def all(self):
        held = self.versions[-1]
        return [
            settings_pb2.Setting(
                name=name,
                value=held.get(name, default),
                default_value=default,
                unit="MiB" if name.endswith("mib") else "",
                range="1 to 9",
                description=f"What {name} does",
            )
            for name, default in DEFAULTS.items()
        ]

    def put(self, values, back_to=None):
        version = settings_pb2.SettingVersion(version=len(self.versions), rolled_back_to=back_to)
        version.time.FromSeconds(1_800_000_000)
        for name, default in DEFAULTS.items():
            old, new = self.versions[-1].get(name, default), values.get(name, "") or default
            if name in values and old != new:
                version.changes.add(name=name, old_value=old, new_value=new)
        merged = {name: value for name, value in (self.versions[-1] | values).items() if value}
        self.versions.append(merged)
        self.log.insert(0, version)

    async def ListSettings(self, request, context):
        await self.fakes.begin(request, context)
        version = len(self.versions) - 1
        return settings_pb2.ListSettingsResponse(settings=self.all(), version=version)

    async def UpdateSettings(self, request, context):
        await self.fakes.begin(request, context)
        present = len(self.versions) - 1
        if request.expected_version not in (0, present):
            raise FailedPrecondition("VERSION_MISMATCH", "the settings have changed")
        for name in request.values:
            if name not in DEFAULTS:
                raise InvalidArgument("INVALID_FIELD", f"values is {name!r}", field="values")
        self.put(dict(request.values))
        return settings_pb2.UpdateSettingsResponse(settings=self.all(), version=present + 1)

    async def ListSettingVersions(self, request, context):
        await self.fakes.begin(request, context)
        return settings_pb2.ListSettingVersionsResponse(versions=self.log)

    async def RollbackSettings(self, request, context):
        await self.fakes.begin(request, context)
        if request.version >= len(self.versions):
            raise NotFound("VERSION_NOT_FOUND", f"there is no version {request.version}")
        self.put(dict.fromkeys(DEFAULTS, "") | self.versions[request.version], request.version)
        version = len(self.versions) - 1
        return settings_pb2.RollbackSettingsResponse(settings=self.all(), version=version)
