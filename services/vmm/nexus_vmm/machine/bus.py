"""The system bus, as far as vmm needs it: calls to systemd, and systemd's signals.

A connection that ends, or a systemd that re-executes itself, is followed by a new connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from dbus_fast import BusType, DBusFastError, Message, MessageType
from dbus_fast.aio import MessageBus

from nexus_rpc.errors import FailedPrecondition, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = f"{SYSTEMD}.Manager"
ROOT = "/org/freedesktop/systemd1"

_DAEMON = "org.freedesktop.DBus"
_OWNER_MATCH = f"type='signal',sender='{_DAEMON}',member='NameOwnerChanged',arg0='{SYSTEMD}'"
# Errors of the bus itself: systemd did not answer at all.
_NO_ANSWER = tuple(
    f"{_DAEMON}.Error.{name}"
    for name in (
        "Disconnected",
        "NoReply",
        "NameHasNoOwner",
        "ServiceUnknown",
        "Timeout",
        "TimedOut",
    )
)

_CALL_SECONDS = 10.0
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

_log = logging.getLogger(__name__)


class SystemBus:
    """A connection to systemd over the system bus.

    `heard` is given each signal that matches one of `matches` and truly is systemd's; `changed`
    is called when the connection is lost and when it is there again.
    """

    def __init__(
        self,
        matches: Sequence[str],
        heard: Callable[[Message], None],
        changed: Callable[[], None],
    ) -> None:
        self._matches = (*matches, _OWNER_MATCH)
        self._heard = heard
        self._changed = changed
        self._bus: MessageBus | None = None
        self._owner = ""

    async def connect(self) -> None:
        """Connect and subscribe to the signals. Raises Unavailable (SYSTEMD_UNREACHABLE)."""
        try:
            bus = MessageBus(bus_type=BusType.SYSTEM, auth_timeout=_CALL_SECONDS)
            await bus.connect()
        except (OSError, EOFError, DBusFastError) as error:
            raise _unreachable(error) from error
        try:
            bus.add_message_handler(self._on_message)
            for match in self._matches:
                await _call(bus, _to_daemon("AddMatch", match))
            # The owner comes after the match for its change, so that none is missed.
            (self._owner,) = await _call(bus, _to_daemon("GetNameOwner", SYSTEMD))
            await _call(bus, _to_systemd(ROOT, MANAGER, "Subscribe", ""))
        except BaseException:
            bus.disconnect()
            raise
        self._bus = bus

    async def keep_connected(self) -> None:
        """Connect again whenever the connection is lost, for ever."""
        while True:
            if self._bus:
                await _ended(self._bus)
            self._bus = None
            _log.warning("the connection to systemd is lost")
            self._changed()
            await self._connect_again()
            _log.info("connected to systemd again")
            self._changed()

    def close(self) -> None:
        """Close the connection."""
        if self._bus:
            self._bus.disconnect()

    async def call(
        self, path: str, interface: str, member: str, signature: str, *body: object
    ) -> list[Any]:
        """Return systemd's answer.

        Raises Unavailable (SYSTEMD_UNREACHABLE) without one, FailedPrecondition (UNIT_FAILED)
        when it is an error, whose D-Bus name is in the metadata as `error`.
        """
        if self._bus is None:
            raise _unreachable("not connected")
        return await _call(self._bus, _to_systemd(path, interface, member, signature, *body))

    async def _connect_again(self) -> None:
        wait = _FIRST_WAIT
        while True:
            try:
                return await self.connect()
            except (Unavailable, FailedPrecondition) as error:
                _log.warning("%s; trying again in %g s", error, wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.sender == _DAEMON and message.member == "NameOwnerChanged":
            if message.body[0] == SYSTEMD:
                self.close()
        # Anyone on the bus may send us a signal directly, past the match rules.
        elif message.sender == self._owner:
            self._heard(message)


async def _ended(bus: MessageBus) -> None:
    try:
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001  # whatever ended it, a new one is made
        _log.info("the bus hung up: %r", error)


def _to_daemon(member: str, argument: str) -> Message:
    """Return a call of the bus daemon itself."""
    path = "/org/freedesktop/DBus"
    return Message(_DAEMON, path, _DAEMON, member, signature="s", body=[argument])


def _to_systemd(path: str, interface: str, member: str, signature: str, *body: object) -> Message:
    return Message(SYSTEMD, path, interface, member, signature=signature, body=list(body))


async def _call(bus: MessageBus, message: Message) -> list[Any]:
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            reply = await bus.call(message)
    except (OSError, EOFError, DBusFastError) as error:  # TimeoutError is an OSError
        raise _unreachable(f"{message.member}: {error!r}") from error
    if reply is None:
        raise _unreachable("the connection was closed")
    if reply.message_type is MessageType.ERROR:
        text = f"{message.member}: {reply.body[0] if reply.body else reply.error_name}"
        if reply.error_name in _NO_ANSWER:
            raise _unreachable(text)
        raise FailedPrecondition(
            "UNIT_FAILED", f"systemd refused {text}", error=reply.error_name or ""
        )
    return list(reply.body)


def _unreachable(why: object) -> Unavailable:
    return Unavailable("SYSTEMD_UNREACHABLE", f"systemd does not answer on the system bus: {why}")
