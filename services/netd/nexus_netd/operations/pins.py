"""What guests were given for names: addresses that they may reach for a time, and remember.

The kernel holds the pins that are live, with their time-outs. Here they are kept with the name, and
those of before too, as far as there is room: to tell a name for an address, and to know which
connections a policy still allows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_netd.model import Pin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from nexus_netd.model import Address, Policy

MOST = 4_096
"""Pins that are kept of one guest, live or not; beyond, the one given first goes."""

_LATE = 2.0
"""Seconds that the kernel's clock may be behind ours."""

Key = tuple["Address", int]
"""An address, and the slot of the rule that allows it: its place in the policy."""


@dataclass
class _Given:
    domain: str
    until: float  # on the monotonic clock
    sure: bool = True  # whether the kernel has said that it has it


@dataclass(frozen=True)
class Renewal:
    """What the kernel is to forget, and what to learn, with the seconds of each."""

    remove: Collection[Key]
    add: Mapping[Key, float]


class Pins:
    """The pins of all guests, by VM."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._wall = wall
        self._given: dict[str, dict[Key, _Given]] = {}
        self._names: dict[str, dict[Address, str]] = {}  # asked for each packet that is refused
        self._leaving: set[str] = set()

    def give(self, vm_id: str, domain: str, keys: Collection[Key], seconds: float) -> Renewal:
        """Remember what the guest is given; return what the kernel is to be told.

        A pin that lasts longer is left alone. Adding an element again does not prolong it before
        Linux 6.12, so one that may still be there is removed first.
        """
        now = self._now()
        mine = self._given.setdefault(vm_id, {})
        remove: list[Key] = []
        add: dict[Key, float] = {}
        for key in keys:
            known = mine.pop(key, None)
            until = now + seconds
            if known is not None and known.sure and known.until >= until:
                mine[key] = _Given(domain, known.until)
                continue
            if known is not None and known.until + _LATE > now:
                remove.append(key)
            mine[key] = _Given(domain, until)
            add[key] = seconds
        self._call(vm_id, dict.fromkeys((address for address, _ in keys), domain))
        while len(mine) > MOST:
            oldest = next(iter(mine))
            add.pop(oldest, None)
            if mine.pop(oldest).until + _LATE > now:
                remove.append(oldest)
        return Renewal(remove, add)

    def doubt(self, vm_id: str, keys: Collection[Key]) -> None:
        """Take it that the kernel may or may not have these: it is to be told of them again."""
        mine = self._given.get(vm_id, {})
        for key in keys:
            if key in mine:
                mine[key].sure = False

    def load(self, vm_id: str, policy: Policy, live: Mapping[Key, float]) -> None:
        """Take up what the kernel has of a guest; the rule's pattern stands for the name."""
        now = self._now()
        mine = self._given.setdefault(vm_id, {})
        for (address, slot), seconds in live.items():
            if slot < len(policy.rules) and policy.rules[slot].domain:
                mine[address, slot] = _Given(policy.rules[slot].domain, now + seconds)
                self._call(vm_id, {address: policy.rules[slot].domain})

    def live(self, vm_id: str) -> dict[Key, float]:
        """Return the guest's live pins, with the seconds that each has left."""
        now = self._now()
        mine = self._given.get(vm_id, {})
        return {key: given.until - now for key, given in mine.items() if given.until > now}

    def move(self, vm_id: str, policy: Policy) -> Renewal:
        """Give what the guest has been given the slots that another policy has for the names."""
        now = self._now()
        before = self._given.pop(vm_id, {})
        after: dict[Key, _Given] = {}
        for (address, _), given in before.items():
            for slot in slots(policy, given.domain):
                known = after.get((address, slot))
                if known is None or known.until < given.until:
                    after[address, slot] = given
        self._given[vm_id] = dict(list(after.items())[-MOST:])
        remove = [key for key in before.keys() - after.keys() if before[key].until + _LATE > now]
        add = {
            key: given.until - now
            for key, given in after.items()
            if key not in before and given.until > now
        }
        return Renewal(remove, add)

    def leave(self, vm_id: str) -> Collection[Key]:
        """Forget a guest that is about to go, and is given nothing more; return as `forget`."""
        keys = self.forget(vm_id)
        self._leaving.add(vm_id)
        return keys

    def is_leaving(self, vm_id: str) -> bool:
        """Whether the guest is about to go."""
        return vm_id in self._leaving

    def forget(self, vm_id: str) -> Collection[Key]:
        """Forget a guest; return what the kernel may still have of it."""
        now = self._now()
        self._leaving.discard(vm_id)
        self._names.pop(vm_id, None)
        mine = self._given.pop(vm_id, {})
        return [key for key, given in mine.items() if given.until + _LATE > now]

    def restore(self, vm_id: str, keys: Mapping[Key, tuple[str, float]]) -> None:
        """Take back a `leave`, `forget` or `move`: `keys` are what `everything` gave."""
        now = self._now()
        self._leaving.discard(vm_id)
        self._given[vm_id] = {
            key: _Given(domain, now + seconds) for key, (domain, seconds) in keys.items()
        }
        self._call(vm_id, {address: domain for (address, _), (domain, _) in keys.items()})

    def everything(self, vm_id: str) -> dict[Key, tuple[str, float]]:
        """Return all that is known of a guest: name, and seconds left (less than 0: it is over)."""
        now = self._now()
        mine = self._given.get(vm_id, {})
        return {key: (given.domain, given.until - now) for key, given in mine.items()}

    def given(self, vm_id: str, address: Address, slot: int) -> bool:
        """Whether the guest was given the address for the rule in that slot, now or before."""
        return (address, slot) in self._given.get(vm_id, {})

    def name(self, vm_id: str, address: Address) -> str:
        """Return the name that the guest was given the address for last, "" without one."""
        return self._names.get(vm_id, {}).get(address, "")

    def count(self) -> int:
        """Return how many pins of all guests are live."""
        return sum(len(self.live(vm_id)) for vm_id in self._given)

    def of(self, vm_id: str) -> Iterator[Pin]:
        """Return the guest's live pins."""
        now, wall = self._now(), self._wall()
        for (address, slot), given in self._given.get(vm_id, {}).items():
            if given.until > now:
                yield Pin(vm_id, given.domain, address, slot, wall + given.until - now)

    def _call(self, vm_id: str, names: Mapping[Address, str]) -> None:
        mine = self._names.setdefault(vm_id, {})
        for address, domain in names.items():
            mine.pop(address, None)
            mine[address] = domain
        while len(mine) > MOST:
            del mine[next(iter(mine))]


def matches(pattern: str, name: str) -> bool:
    """Whether a rule's domain stands for the name; "*.pypi.org" does for all below pypi.org."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:]) and name != pattern[1:]
    return name == pattern


def slots(policy: Policy, name: str) -> list[int]:
    """Return the places of the rules that allow the name."""
    return [
        slot
        for slot, rule in enumerate(policy.rules)
        if rule.allow and rule.domain and matches(rule.domain, name)
    ]
