"""Quotas of tags: what the VMs with a tag may use of the host together.

They are written as `team=blue: memory_mib=4096, vms=10; team=red: vcpus=8`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST = 100
"""Tags that can have a quota."""

RESOURCES = ("memory_mib", "vcpus", "disk_mib", "vms")
"""What budgets and quotas are of (see Budget in vmm.proto)."""

_LONGEST = 16_384
_LIMIT = rf"(?:{'|'.join(RESOURCES)}) *= *[0-9]{{1,10}}"
# A value may hold anything printable, so an entry is told by the limits that it ends with.
_ENTRY = re.compile(
    r" *(?P<key>[a-z][a-z0-9._/-]{0,62})=(?P<value>[ -~]{0,63}?): *"
    rf"(?P<limits>{_LIMIT}(?: *, *{_LIMIT})*) *(?:;|$)"
)


@dataclass(frozen=True)
class Quota:
    """The limits of one tag, each by its resource."""

    key: str
    value: str
    limits: tuple[tuple[str, int], ...]

    @property
    def tag(self) -> str:
        """The tag in words."""
        return f"{self.key}={self.value}"

    def __str__(self) -> str:
        return f"{self.tag}: " + ", ".join(f"{what}={limit}" for what, limit in self.limits)


class Quotas(tuple[Quota, ...]):
    """All quotas there are, in the order in which they were written."""

    __slots__ = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self))


@dataclass(frozen=True)
class QuotaList:
    """The type of a setting that holds quotas."""

    @property
    def range(self) -> str:
        """What values are allowed, for people."""
        return (
            f"at most {MOST} of KEY=VALUE: LIMIT=N, LIMIT=N; with ';' between them, each tag once; "
            f"limits are {', '.join(RESOURCES)}"
        )

    def parse(self, text: str) -> Quotas:
        """Return the quotas; none where there is no text. Raises ValueError."""
        found: dict[str, Quota] = {}
        at = 0
        if len(text) > _LONGEST:
            raise ValueError(f"at most {_LONGEST:,} characters")
        while at < len(text):
            entry = _ENTRY.match(text, at)
            if entry is None:
                raise ValueError(f"{self.range}; not so from {text[at : at + 40]!r} on")
            quota = Quota(entry["key"], entry["value"], _limits(entry["limits"]))
            if quota.tag in found or len(found) == MOST:
                raise ValueError(self.range)
            found[quota.tag] = quota
            at = entry.end()
        return Quotas(found.values())


def _limits(text: str) -> tuple[tuple[str, int], ...]:
    pairs = [pair.split("=") for pair in text.split(",")]
    limits = {what.strip(): int(limit) for what, limit in pairs}
    if len(limits) != len(pairs):
        raise ValueError(f"each limit once, not {text!r}")
    return tuple(limits.items())
