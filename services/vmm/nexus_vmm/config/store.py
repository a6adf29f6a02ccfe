"""The settings that hold, in the store of VMs, and every change of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nexus_vmm.clock import now
from nexus_vmm.config import table as config
from nexus_vmm.config import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nexus_rpc.database import Database
    from nexus_vmm.calls import Request
    from nexus_vmm.config.table import Config
    from nexus_vmm.config.versions import Version

_log = logging.getLogger(__name__)


class SettingStore:
    """The settings of this host's vmm. What is asked here holds in the next transaction already."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self) -> None:
        """Say which versions cannot be read, and which values of another release do not hold."""
        for number in await self._database.read(versions.damaged):
            _log.error("version %d of the settings cannot be read: as if it had not been", number)
        for name in config.unfit(dict((await self.newest()).values)):
            _log.warning("the value of the setting %s is not allowed: its default holds", name)

    async def current(self) -> Config:
        """Return the settings that hold."""
        return await self._database.read(versions.current)

    async def newest(self) -> Version:
        """Return the version that holds."""
        return await self._database.read(versions.newest)

    async def versions(self) -> list[Version]:
        """Return the versions that are kept, the newest first."""
        return await self._database.read(versions.every)

    async def update(self, request: Request, values: Mapping[str, str], expected: int) -> Version:
        """Give settings other values; see `versions.update`. Raises InvalidArgument as well."""
        kept = config.check(values)
        version, new = await self._database.write(
            lambda db: versions.update(db, request, kept, expected, now())
        )
        return _told(version, new)

    async def roll_back(self, request: Request, number: int) -> Version:
        """Bring the values of a version back; see `versions.roll_back`."""
        version, new = await self._database.write(
            lambda db: versions.roll_back(db, request, number, now())
        )
        return _told(version, new)


def _told(version: Version, new: bool) -> Version:
    if new:
        changes = ", ".join(f"{change.name}={change.new}" for change in version.changes)
        _log.info("settings: version %d: %s", version.number, changes)
    return version
