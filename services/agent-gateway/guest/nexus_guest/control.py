"""Port 100: who the guest is, setting it up, its heartbeat, its end."""

from __future__ import annotations

import os

from nexus_guest import VERSION, fields
from nexus_guest.connection import Connection
from nexus_guest.errors import GuestError, invalid
from nexus_guest.network import Network
from nexus_guest.wire import Kind, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Protocol

    class Machine(Protocol):
        """What the control port acts on."""

        def configure(self, hostname: str, network: Network | None) -> list[str]:
            """Set hostname and network, as often as asked; return what failed, for people."""

        def shut_down(self) -> None:
            """Have the machine end in order, its disks written. May return before it does."""


_SILENCE_S = 60.0  # The gateway pings every 5 s; a connection it forgot must not stay for ever.
_RELEASE_FILES = ("/etc/os-release", "/usr/lib/os-release")


class Control:
    """Answers the requests of each connection in order."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._operations: dict[str, Callable[[dict[str, object]], dict[str, object]]] = {
            "hello": _hello,
            "configure": self._configure,
            "ping": _ping,
            "shutdown": _ping,
        }

    def serve(self, sock: socket.socket) -> None:
        """Answer until the host closes the connection or falls silent."""
        connection = Connection(sock)
        connection.set_timeout(_SILENCE_S)
        while (frame := connection.receive()) is not None:
            if frame.kind is not Kind.REQUEST:
                raise WireError(f"{frame.kind.name}, expected REQUEST")
            op = frame.message.get("op")
            try:
                connection.send_message(Kind.REPLY, self._answer(op, frame.message))
            except GuestError as error:
                connection.send_error(error)
            if op == "shutdown":
                self._machine.shut_down()

    def refuse(self, sock: socket.socket) -> None:
        """Tell the host that there are too many connections."""
        Connection(sock).send_error(GuestError("GUEST_BUSY", "too many control connections"))

    def _answer(self, op: object, message: dict[str, object]) -> dict[str, object]:
        if not isinstance(op, str) or op not in self._operations:
            raise invalid("op", op, f"one of {', '.join(self._operations)}")
        return self._operations[op](message)

    def _configure(self, message: dict[str, object]) -> dict[str, object]:
        wanted = message.get("network")
        if not isinstance(wanted, dict | None):
            raise invalid("network", wanted, "an object")
        network = None if wanted is None else Network.of(wanted)
        return {"warnings": self._machine.configure(fields.text(message, "hostname"), network)}


def _ping(message: dict[str, object]) -> dict[str, object]:
    del message
    return {}


def _hello(message: dict[str, object]) -> dict[str, object]:
    del message
    return {
        "boot_id": _read("/proc/sys/kernel/random/boot_id").strip(),
        "agent_version": VERSION,
        "kernel": os.uname().release,
        "os": pretty_name("\n".join(map(_read, _RELEASE_FILES))),
    }


def pretty_name(release: str) -> str:
    """Return the first PRETTY_NAME in the text of os-release(5) files, or "unknown"."""
    for line in release.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() == "PRETTY_NAME":
            return value.strip().strip("\"'")[:256]
    return "unknown"


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(65536).decode(errors="replace")
    except OSError:
        return ""
