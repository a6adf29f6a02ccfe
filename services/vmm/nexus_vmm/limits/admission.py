"""Whether there is room for a VM, by the store's own figures.

The methods run inside the transaction that records what they let pass, so that no two changes
together pass a budget.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nexus_vmm.calls import is_held
from nexus_vmm.config import versions
from nexus_vmm.config.quotas import RESOURCES
from nexus_vmm.limits import capacity
from nexus_vmm.limits.capacity import Amounts, Budget
from nexus_vmm.records.record import SPEC, has_tag
from nexus_vmm.states import LIVE
from nexus_vmm.vm import Goal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from nexus_vmm.config.table import Config
    from nexus_vmm.limits.host import Host
    from nexus_vmm.vm import Spec, Vm

# A row that is damaged must not keep all others from starting: total() never overflows.
_USED = f"""
WITH specs AS (
  SELECT state IN (SELECT value FROM json_each(:live)) OR goal = :run AS live, {SPEC} AS spec
  FROM vms WHERE id != :without AND (:key = '' OR {has_tag(":key", ":value")})
)
SELECT count(*) AS vms,
  total(spec ->> '$.disk_mib') AS disk_mib,
  total(CASE WHEN live THEN spec ->> '$.memory_mib' END) AS memory_mib,
  total(CASE WHEN live THEN spec ->> '$.vcpu_count' END) AS vcpus
FROM specs
"""  # noqa: S608  # no caller's
_LIVE = json.dumps(sorted(LIVE))
_MOST = 2**62
"""More than any budget; damage may say anything."""


class Admission:
    """Holds VMs against the budgets of `host` and the quotas of tags, as the settings have them."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def check_new(self, db: sqlite3.Connection, name: str, spec: Spec) -> None:
        """Raise ResourceExhausted (NO_CAPACITY, QUOTA_EXCEEDED) if a VM cannot be made."""
        self._check(db, "", name, spec, capacity.of_all(spec))

    def check_start(self, db: sqlite3.Connection, vm: Vm) -> None:
        """Raise as `check_new` does if a VM, which is at rest, cannot be started."""
        self._check(db, vm.id, vm.name, vm.spec, capacity.of_live(vm.spec))

    def check_change(self, db: sqlite3.Connection, vm: Vm, spec: Spec) -> None:
        """Raise as `check_new` does if a VM cannot have the tags, or the larger disk, of `spec`.

        What `spec` asks for otherwise counts at the start.
        """
        if spec.disk_mib > vm.spec.disk_mib:
            self._check(db, vm.id, vm.name, spec, {"disk_mib": spec.disk_mib})
        asked = capacity.of_all(spec) | (capacity.of_live(spec) if is_held(vm) else {})
        added = set(spec.tags) - set(vm.spec.tags)
        capacity.check(vm.name, asked, _quotas(db, versions.current(db), added, vm.id))

    def budgets(self, db: sqlite3.Connection) -> list[Budget]:
        """Return all budgets of the host, then all quotas. Raises OSError."""
        config = versions.current(db)
        tags = [(quota.key, quota.value) for quota in config.quota_tags]
        return [*self._budgets(db, config, RESOURCES, ""), *_quotas(db, config, tags, "")]

    def _check(
        self, db: sqlite3.Connection, vm_id: str, name: str, spec: Spec, asked: Amounts
    ) -> None:
        config = versions.current(db)
        capacity.check(name, asked, self._budgets(db, config, asked, vm_id))
        capacity.check(name, asked, _quotas(db, config, spec.tags, vm_id))

    def _budgets(
        self, db: sqlite3.Connection, config: Config, resources: Iterable[str], without: str
    ) -> Iterator[Budget]:
        used = _used(db, without)
        for what in resources:
            yield Budget(what, "", capacity.limit(what, config, self._host), used[what])


def _quotas(
    db: sqlite3.Connection, config: Config, tags: Iterable[tuple[str, str]], without: str
) -> Iterator[Budget]:
    """Yield what the quotas of `tags` leave to the VM with the id `without`."""
    wanted = set(tags)
    for quota in config.quota_tags:
        if (quota.key, quota.value) in wanted:
            used = _used(db, without, quota.key, quota.value)
            for what, limit in quota.limits:
                yield Budget(what, quota.tag, limit, used[what])


def _used(db: sqlite3.Connection, without: str, key: str = "", value: str = "") -> Amounts:
    """Return what VMs use, those with one tag where `key` is given."""
    given = {"live": _LIVE, "run": Goal.RUN, "without": without, "key": key, "value": value}
    row = db.execute(_USED, given).fetchone()
    return {what: int(min(max(row[what], 0), _MOST)) for what in RESOURCES}
