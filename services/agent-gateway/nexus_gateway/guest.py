"""One guest: the control connection to one boot of one VM, kept up for as long as it lives."""

from __future__ import annotations

import asyncio
import enum
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nexus_gateway.link import Link
from nexus_guest.wire import CONTROL_PORT
from nexus_rpc.errors import DataLoss, NexusError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.vsock import Dial

_log = logging.getLogger(__name__)


class State(enum.Enum):
    """How the gateway stands with a guest; see GuestState in the proto."""

    CONNECTING = enum.auto()
    PROVISIONING = enum.auto()
    READY = enum.auto()
    UNREACHABLE = enum.auto()


@dataclass(frozen=True)
class Guest:
    """What is known of the guest in one boot of a VM; all but the first four is its own word."""

    vm_id: str
    boot: str
    state: State = State.CONNECTING
    reason: str = "the agent has not answered yet"
    boot_id: str = ""
    agent_version: str = ""
    kernel: str = ""
    os: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """Seconds that guests get.

    `ready`: from the start of following to READY, else UNREACHABLE. `silence`: without an answer
    or a connection, else UNREACHABLE. `ping`: between pings. `attempt`: for one dial and hello.
    """

    ready: float = 60.0
    silence: float = 15.0
    ping: float = 5.0
    attempt: float = 5.0


class Follower:
    """Dials, says hello, configures and pings, and dials again when that breaks.

    A guest whose VM is given other addresses is configured again, on the same connection.
    """

    def __init__(self, vm: Vm, dial: Dial, timing: Timing, tell: Callable[[Guest], None]) -> None:
        self._vm = vm
        self._dial = dial
        self._timing = timing
        self._tell = tell
        self._guest = Guest(vm_id=vm.id, boot=vm.boot)
        self._give_up_at = 0.0
        self._renewed = asyncio.Event()

    def renew(self, vm: Vm) -> None:
        """Take in what vmm tells of the VM in the same boot."""
        if vm.spec.network != self._vm.spec.network:
            self._renewed.set()
        self._vm = vm

    async def run(self) -> None:
        """Keep the connection, until cancelled."""
        self._give_up_at = _now() + self._timing.ready
        waits = _waits()
        while True:
            began = _now()
            try:
                await self._session()
            except NexusError as error:
                why = error.message
                if isinstance(error, DataLoss):
                    _log.warning("a guest broke the protocol: %s", why, extra=self._fields())
            # Only a connection that lasted starts afresh: one that is lost at once, again and
            # again, must not keep the gateway busy.
            if _now() - began > self._timing.silence:
                waits = _waits()
            # One that was asked to shut down falls silent, and is not lost for that.
            if _now() >= self._give_up_at and not self._vm.stopping:
                self._set(State.UNREACHABLE, f"the agent does not answer: {why}")
            else:
                self._set(State.CONNECTING, f"the agent does not answer yet: {why}")
            await asyncio.sleep(next(waits))

    async def _session(self) -> None:
        """Serve one connection; always ends with a NexusError."""
        async with await self._dial(
            self._vm.vsock_path, CONTROL_PORT, timeout=self._patience()
        ) as connection:
            link = Link(connection)
            hello = await link.hello(timeout=self._patience())
            self._guest = replace(self._guest, **vars(hello), warnings=())
            self._set(State.PROVISIONING, "network, hostname and DNS are being set")
            await self._configure(link)
            while True:
                self._give_up_at = _now() + self._timing.silence
                if await self._is_renewed(self._timing.ping):
                    await self._configure(link)
                else:
                    await link.ping(timeout=self._give_up_at - _now())

    async def _is_renewed(self, within: float) -> bool:
        """Whether the VM's interface is another than the guest was told, or becomes so `within`."""
        try:
            async with asyncio.timeout(within):
                await self._renewed.wait()
        except TimeoutError:
            return False
        return True

    async def _configure(self, link: Link) -> None:
        self._renewed.clear()
        try:
            warnings = await link.configure(self._vm)
        except (Unavailable, DataLoss):
            raise
        except NexusError as error:
            # A guest that could not be set up still takes commands: say so, and carry on.
            warnings = (error.message,)
        self._set(State.READY, "the agent answers", warnings)

    def _patience(self) -> float:
        """Seconds for the next step: no longer than until the guest is to be given up."""
        left = self._give_up_at - _now()
        return min(left, self._timing.attempt) if left > 0 else self._timing.attempt

    def _set(self, state: State, reason: str, warnings: tuple[str, ...] | None = None) -> None:
        """Make it known; the warnings stay unless there are new ones."""
        before = self._guest
        kept = before.warnings if warnings is None else warnings
        self._guest = replace(before, state=state, reason=reason, warnings=kept)
        if before.state is not state:
            _log.info(
                "guest is %s: %s",
                state.name,
                reason,
                extra={**self._fields(), "from": before.state.name},
            )
        if before != self._guest:
            self._tell(self._guest)

    def _fields(self) -> dict[str, str]:
        return {"vm": self._vm.id, "vm_name": self._vm.name}


def _waits() -> Iterator[float]:
    """Waits between dials: short for a minute, as a guest boots in 3 to 5 s, then long."""
    wait, total = 0.1, 0.0
    while total < 60.0:
        yield wait
        total += wait
        wait = min(wait * 1.3, 1.0)
    wait = 2.0
    while True:
        yield wait
        wait = min(wait * 2, 32.0)


def _now() -> float:
    return asyncio.get_running_loop().time()
