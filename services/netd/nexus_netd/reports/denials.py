"""What guests were refused, as events: by the kernel's rules, and by the resolver.

Guests make these, as many as they like, so everything here is bounded: alike ones within a second
are one event, unlike ones beyond a number are counted in one, and old events go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from nexus_netd import checks, metrics, model
from nexus_netd.feed import Channel, Missed
from nexus_netd.kernel import KernelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container

    from nexus_netd.kernel import Refusal
    from nexus_netd.model import Address

WINDOW = 1.0
"""Seconds within which alike denials are one event."""

AGAIN = 5.0
"""Seconds until a kernel that does not tell is asked again."""

UNLIKE = 256
"""Unlike denials of one VM within the window; the others are told without their destination."""

UNLIKE_IN_ALL = 16_384
AT_A_TIME = 64
KEPT_OF_ONE = 1_000
KEPT_IN_ALL = 10_000

LOGGED_OF_ONE = 5
"""Events of one VM that are logged in a second."""

LOGGED_IN_ALL = 50

BY_NAME = frozenset({"name", "private answer"})
"""What the resolver refuses for, as resolver.proto has it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Denial:
    """Something that a guest was refused, `count` times within a second from `time` (Unix) on.

    The fields are those of netd.proto. `protocol` is the packet's number, 0 for a name.
    """

    time: float
    vm_id: str
    rule: str
    protocol: int = 0
    address: Address | None = None
    port: int = 0
    domain: str = ""
    count: int = 1


class Kernel(Protocol):
    """Of `nexus_netd.kernel.Kernel`, what tells of refused packets."""

    def refusals(self) -> AsyncIterator[Refusal]:
        """Tell of refused packets, for ever."""


class Guests(Protocol):
    """Who is there, and behind a TAP or an address: `nexus_netd.view.View`."""

    @property
    def guests(self) -> Container[str]:
        """The VMs that have a port."""

    def at_tap(self, name: str) -> str | None:
        """Return the VM behind the TAP."""

    def at_address(self, address: Address) -> str | None:
        """Return the VM that has the address."""


class Denials:
    """The denials of all guests. `name` returns what a VM was last given an address for, or ""."""

    def __init__(
        self,
        kernel: Kernel,
        guests: Guests,
        name: Callable[[str, Address], str],
        *,
        window: float = WINDOW,
    ) -> None:
        self._kernel = kernel
        self._guests = guests
        self._name = name
        self._groups = _Groups(window)
        self._history = _History()
        self._channel = Channel[Denial]()
        self._logged = _LogBound()
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """Take in what the kernel tells, and make events of it, for ever.

        A kernel that does not tell (NFLOG is not there) costs its denials, not the network.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close_regularly())
            told = ""
            while True:
                try:
                    async for refusal in self._kernel.refusals():
                        self._take(refusal)
                except KernelError as error:
                    if str(error) != told:
                        _log.error("denials are not heard: %s", error)  # once, not at each try
                    told = str(error)
                await asyncio.sleep(AGAIN)

    def report(self, vm_id: str, domain: str, rule: str) -> None:
        """Take in what the resolver refused; what no resolver would say is left out.

        It reads what guests and name servers send, and might be taken over by one of them.
        """
        if vm_id in self._guests.guests and rule in BY_NAME and checks.is_told_name(domain):
            self._add(Denial(time.time(), vm_id, rule, domain=domain))

    async def watch(self, vm_id: str, last: int, *, follow: bool) -> AsyncIterator[Denial | Missed]:
        """Yield the `last` events of the VM or of all, oldest first; go on with `follow`."""
        with self._channel.watch(lambda denial: vm_id in {"", denial.vm_id}) as watcher:
            # Without a pause between the two, nothing is lost and nothing comes twice.
            for denial in self._history.last(vm_id, last):
                yield denial
            if follow:
                async for denial_or_missed in watcher:
                    yield denial_or_missed

    def count(self, vm_id: str, rule: str) -> int:
        """Return how often the VM was refused for that reason, as far as events are kept."""
        return sum(
            denial.count for denial in self._history.last(vm_id, KEPT_OF_ONE) if denial.rule == rule
        )

    def close(self) -> None:
        """End all watching: the service stops."""
        self._channel.close()

    def _take(self, refusal: Refusal) -> None:
        vm_id = self._culprit(refusal)
        if vm_id is None:
            return  # its port is gone since
        address = refusal.destination
        domain = self._name(vm_id, address) if address is not None else ""
        self._add(
            Denial(
                time.time(),
                vm_id,
                refusal.reason,
                refusal.protocol,
                address,
                refusal.port,
                domain,
            )
        )

    def _culprit(self, refusal: Refusal) -> str | None:
        """Return who sent it: on the bridge the TAP tells; beyond, the source was checked there."""
        if refusal.tap is not None:
            return self._guests.at_tap(refusal.tap)
        return self._guests.at_address(refusal.source) if refusal.source is not None else None

    def _add(self, denial: Denial) -> None:
        self._groups.add(denial)
        self._opened.set()

    async def _close_regularly(self) -> None:
        while True:
            await self._opened.wait()
            self._opened.clear()
            while (ends := self._groups.first_end()) is not None:
                await asyncio.sleep(ends - time.monotonic())
                for number, denial in enumerate(self._groups.take_ended()):
                    if number % AT_A_TIME == 0:
                        await asyncio.sleep(0)  # for watchers to take what they were told
                    self._emit(denial)

    def _emit(self, denial: Denial) -> None:
        self._history.add(denial)
        self._channel.tell(denial)
        metrics.denied(denial.rule, denial.count)
        if self._logged.allows(denial):
            _log.info("denied", extra=_fields(denial))


@dataclass(slots=True)
class _Group:
    first: Denial
    count: int
    ends: float  # of the clock that is never set


class _Groups:
    """Alike denials, counted together for `window` seconds; those that end first come first."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._open: OrderedDict[Denial, _Group] = OrderedDict()
        self._unlike = Counter[str]()

    def add(self, denial: Denial) -> None:
        """Count the denial with those that are alike, or begin with it."""
        kind = replace(denial, time=0.0)
        if kind not in self._open and self._is_full(denial.vm_id):
            kind = Denial(0.0, denial.vm_id, denial.rule)
        known = self._open.get(kind)
        if known is not None:
            known.count += 1
            return
        first = replace(kind, time=denial.time)
        self._open[kind] = _Group(first, 1, time.monotonic() + self._window)
        self._unlike[denial.vm_id] += 1

    def first_end(self) -> float | None:
        """Return when the first of them ends."""
        return next(iter(self._open.values())).ends if self._open else None

    def take_ended(self) -> list[Denial]:
        """Take out those that have ended."""
        taken = []
        while self._open and (self.first_end() or 0.0) <= time.monotonic():
            _, group = self._open.popitem(last=False)
            vm_id = group.first.vm_id
            self._unlike[vm_id] -= 1
            if not self._unlike[vm_id]:
                del self._unlike[vm_id]
            taken.append(replace(group.first, count=group.count))
        return taken

    def _is_full(self, vm_id: str) -> bool:
        return len(self._open) >= UNLIKE_IN_ALL or self._unlike[vm_id] >= UNLIKE


class _History:
    """The last events: of one VM at most 1,000, of all 10,000."""

    def __init__(self) -> None:
        self._events: OrderedDict[int, Denial] = OrderedDict()
        self._of: dict[str, deque[int]] = {}
        self._number = 0

    def add(self, denial: Denial) -> None:
        """Keep the event; the VM's oldest goes, or the oldest of all, where there are too many."""
        mine = self._of.setdefault(denial.vm_id, deque())
        if len(mine) >= KEPT_OF_ONE:
            del self._events[mine.popleft()]
        elif len(self._events) >= KEPT_IN_ALL:
            self._drop_oldest()
        self._of.setdefault(denial.vm_id, mine).append(self._number)
        self._events[self._number] = denial
        self._number += 1

    def last(self, vm_id: str, number: int) -> list[Denial]:
        """Return the last events of the VM, or of all, oldest first."""
        if vm_id:
            numbers = self._of.get(vm_id, ())
            return [self._events[one] for one in list(numbers)[max(len(numbers) - number, 0) :]]
        newest_first = iter(reversed(self._events.values()))
        taken = [denial for _, denial in zip(range(number), newest_first, strict=False)]
        return taken[::-1]

    def _drop_oldest(self) -> None:
        _, denial = self._events.popitem(last=False)
        others = self._of[denial.vm_id]
        others.popleft()
        if not others:
            del self._of[denial.vm_id]


class _LogBound:
    """How many events are logged in each second; what was left out is said in the next."""

    def __init__(self) -> None:
        self._second = 0
        self._logged = Counter[str]()
        self._left_out = 0

    def allows(self, denial: Denial) -> bool:
        """Whether to log the event."""
        second = int(denial.time)
        if second != self._second:
            if self._left_out:
                _log.info("denials not logged", extra={"denials": self._left_out})
            self._second, self._left_out = second, 0
            self._logged.clear()
        if self._logged[denial.vm_id] >= LOGGED_OF_ONE or self._logged.total() >= LOGGED_IN_ALL:
            self._left_out += 1
            return False
        self._logged[denial.vm_id] += 1
        return True


def _fields(denial: Denial) -> dict[str, str | int]:
    """Return what is known of the event, as fields of a log line."""
    protocol = denial.protocol
    names = {int(known): known.name for known in model.Protocol if known}
    told = {
        "vm_id": denial.vm_id,
        "rule": denial.rule,
        "protocol": names.get(protocol, protocol),
        "address": str(denial.address or ""),
        "port": denial.port,
        "domain": denial.domain,
        "count": denial.count,
    }
    return {key: value for key, value in told.items() if value}
