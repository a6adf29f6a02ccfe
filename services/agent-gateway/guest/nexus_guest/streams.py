"""Port 300: one operation a connection, on commands and files."""

from __future__ import annotations

from nexus_guest import fields, files, login
from nexus_guest.command import Command, Gone, run
from nexus_guest.connection import Connection
from nexus_guest.errors import GuestError, invalid
from nexus_guest.wire import Kind, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from nexus_guest.wire import Frame

    Operation = Callable[[Connection, dict[str, object]], None]

_CHUNK = 1 << 16
_REQUEST_S = 30.0
_STALL_S = 300.0


def serve(sock: socket.socket) -> None:
    """Do the operation that the first frame asks for."""
    connection = Connection(sock)
    connection.set_timeout(_REQUEST_S)
    request = connection.receive()
    if request is None:
        return
    if request.kind is not Kind.REQUEST:
        raise WireError(f"{request.kind.name}, expected REQUEST")
    try:
        _operation(request.message)(connection, request.message)
    except GuestError as error:
        connection.send_error(error)
    except Gone:
        return
    connection.linger()


def refuse(sock: socket.socket) -> None:
    """Tell the host that there are too many connections."""
    Connection(sock).send_error(GuestError("GUEST_BUSY", "too many operations at one time"))


def _operation(message: dict[str, object]) -> Operation:
    op = message.get("op")
    if not isinstance(op, str) or op not in _OPERATIONS:
        raise invalid("op", op, f"one of {', '.join(_OPERATIONS)}")
    return _OPERATIONS[op]


def _exec(connection: Connection, message: dict[str, object]) -> None:
    env = login.environment() | fields.environment(message, "env")
    cwd = fields.path(message, "cwd", login.home(env))
    command = Command(fields.texts(message, "argv"), env, cwd)
    try:
        # A slow host slows the command, for as long as it likes.
        connection.set_timeout(None)
        connection.send_message(Kind.REPLY, {"pid": command.pid})
        code, signal = run(command, _Host(connection))
    finally:
        command.close()
    connection.send_message(Kind.EXIT, {"code": code, "signal": signal})


class _Host:
    """The host as the caller of a command."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ended = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def received(self) -> tuple[bytes, bool]:
        pieces = [self._input(frame) for frame in self._connection.take()]
        return b"".join(pieces), self._ended

    def receive(self) -> tuple[bytes, bool]:
        if not self._connection.fill():
            raise Gone
        return self.received()

    def _input(self, frame: Frame) -> bytes:
        if self._ended or frame.kind not in (Kind.DATA, Kind.END):
            raise WireError(f"{frame.kind.name} where input was expected")
        self._ended = frame.kind is Kind.END
        return frame.payload

    def stdout(self, data: bytes) -> None:
        self._connection.send(Kind.STDOUT, data)

    def stderr(self, data: bytes) -> None:
        self._connection.send(Kind.STDERR, data)


def _read(connection: Connection, message: dict[str, object]) -> None:
    connection.set_timeout(_STALL_S)
    reader = files.Reader(fields.path(message, "path"))
    try:
        connection.send_message(Kind.REPLY, {"size": reader.size, "mode": reader.mode})
        while data := reader.read(_CHUNK):
            connection.send(Kind.DATA, data)
    finally:
        reader.close()
    connection.send(Kind.END)


def _write(connection: Connection, message: dict[str, object]) -> None:
    connection.set_timeout(_STALL_S)
    path, mode = fields.path(message, "path"), fields.mode(message, "mode")
    writer = files.Writer(path, mode, parents=fields.flag(message, "parents"))
    try:
        while True:
            frame = connection.receive()
            if frame is None:
                raise Gone
            if frame.kind is Kind.END:
                break
            if frame.kind is not Kind.DATA:
                raise WireError(f"{frame.kind.name} where DATA was expected")
            writer.write(frame.payload)
        writer.commit()
    finally:
        writer.close()
    connection.send_message(Kind.REPLY, {"size": writer.size})


def _delete(connection: Connection, message: dict[str, object]) -> None:
    files.delete(fields.path(message, "path"))
    connection.send_message(Kind.REPLY, {})


_OPERATIONS: dict[str, Operation] = {
    "exec": _exec,
    "read": _read,
    "write": _write,
    "delete": _delete,
}
