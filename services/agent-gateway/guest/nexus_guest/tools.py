"""The tools that port 200 offers to a model."""

from __future__ import annotations

import base64
import binascii
import os

from nexus_guest import command, fields, files, login
from nexus_guest.errors import GuestError, invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Result = dict[str, object]
    Arguments = Mapping[str, object]

MAX_READ = 5 << 20
"""Largest file that `file_read` returns, in bytes."""

MAX_OUTPUT = 256 << 10
"""Bytes kept of each of a command's outputs; the rest is dropped and said to be."""

_ENCODINGS = ("utf-8", "base64")
_PATH = {"type": "string", "description": "Absolute path in the VM."}
_ENCODING = {
    "type": "string",
    "enum": list(_ENCODINGS),
    "description": "How bytes are carried as text. Default utf-8; base64 for any bytes.",
}


class Cancellation:
    """Tells a running tool to stop. One descriptor, readable once `cancel` was called."""

    def __init__(self) -> None:
        self._event = os.eventfd(0)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._event

    def cancel(self) -> None:
        """Stop the tool, as soon as it looks."""
        os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._event)


def call(name: str, arguments: Arguments, cancellation: Cancellation) -> Result:
    """Run a tool and return MCP's CallToolResult. KeyError if there is none of that name.

    What the model can act on is a result with `isError`. Raises command.Gone when cancelled.
    """
    tool = _CALLS[name]
    try:
        return tool(arguments, cancellation)
    except GuestError as error:
        return _result(f"{error.reason}: {error.message}", failed=True)


def _result(text: str, structured: object = None, *, failed: bool = False) -> Result:
    result: Result = {"content": [{"type": "text", "text": text}], "isError": failed}
    if structured is not None:
        result["structuredContent"] = structured
    return result


def _encoding(arguments: Arguments) -> str:
    encoding = fields.text(arguments, "encoding", "utf-8")
    if encoding not in _ENCODINGS:
        raise invalid("encoding", encoding, f"one of {', '.join(_ENCODINGS)}")
    return encoding


def _file_read(arguments: Arguments, _: Cancellation) -> Result:
    path, encoding = fields.path(arguments, "path"), _encoding(arguments)
    reader = files.Reader(path)
    data = bytearray()
    try:
        while len(data) <= MAX_READ and (piece := reader.read(1 << 20)):
            data += piece
    finally:
        reader.close()
    if len(data) > MAX_READ:
        raise GuestError(
            "INVALID_FIELD", f"{path} is larger than {MAX_READ} bytes; read it in parts"
        )
    if encoding == "base64":
        return _result(base64.b64encode(data).decode())
    try:
        return _result(data.decode())
    except UnicodeDecodeError:
        raise invalid("encoding", encoding, f"base64, {path} is not UTF-8") from None


def _file_write(arguments: Arguments, _: Cancellation) -> Result:
    path, encoding = fields.path(arguments, "path"), _encoding(arguments)
    content = arguments.get("content")
    if not isinstance(content, str):
        raise invalid("content", content, "a string")
    try:
        data = content.encode() if encoding == "utf-8" else base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise invalid("content", content, f"base64 ({error})") from None
    writer = files.Writer(path, fields.mode(arguments, "mode"), parents=True)
    try:
        writer.write(data)
        writer.commit()
    finally:
        writer.close()
    return _result(f"{len(data)} bytes written to {path}", {"size": len(data)})


def _file_delete(arguments: Arguments, _: Cancellation) -> Result:
    path = fields.path(arguments, "path")
    files.delete(path)
    return _result(f"{path} deleted")


class _Collector:
    """The caller of a command that gives no input and keeps the start of each output."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self.out = bytearray()
        self.err = bytearray()
        self.truncated = False

    def fileno(self) -> int:
        return self._cancellation.fileno()

    def received(self) -> tuple[bytes, bool]:
        return b"", True

    def receive(self) -> tuple[bytes, bool]:
        raise command.Gone

    def stdout(self, data: bytes) -> None:
        self._keep(self.out, data)

    def stderr(self, data: bytes) -> None:
        self._keep(self.err, data)

    def _keep(self, kept: bytearray, data: bytes) -> None:
        room = MAX_OUTPUT - len(kept)
        kept += data[:room]
        self.truncated = self.truncated or len(data) > room


def _run_command(arguments: Arguments, cancellation: Cancellation) -> Result:
    env = login.environment()
    argv = [fields.text(arguments, "command"), *fields.texts(arguments, "args")]
    running = command.Command(argv, env, login.home(env))
    collector = _Collector(cancellation)
    try:
        code, _ = command.run(running, collector)
    finally:
        running.close()
    out, err = (kept.decode(errors="replace") for kept in (collector.out, collector.err))
    structured = {
        "exit_code": code,
        "success": code == 0,
        "stdout": out,
        "stderr": err,
        "truncated": collector.truncated,
    }
    text = f"{out}{err}" if code == 0 else f"{out}{err}\nexit code {code}"
    return _result(text, structured, failed=code != 0)


_CALLS: dict[str, Callable[[Arguments, Cancellation], Result]] = {
    "file_read": _file_read,
    "file_write": _file_write,
    "file_delete": _file_delete,
    "run_command": _run_command,
}


def _object(required: list[str], **properties: object) -> Result:
    return {"type": "object", "properties": properties, "required": required}


TOOLS: list[Result] = [
    {
        "name": "file_read",
        "description": f"Reads a file of the VM, at most {MAX_READ >> 20} MiB.",
        "inputSchema": _object(["path"], path=_PATH, encoding=_ENCODING),
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    },
    {
        "name": "file_write",
        "description": "Writes a file of the VM, whole or not at all; makes parent directories.",
        "inputSchema": _object(
            ["path", "content"],
            path=_PATH,
            content={"type": "string", "description": "What the file is to hold."},
            encoding=_ENCODING,
            mode={"type": "integer", "description": "Permission bits; default: kept, or 0644."},
        ),
        "outputSchema": _object(["size"], size={"type": "integer"}),
        "annotations": {"destructiveHint": True, "idempotentHint": True, "openWorldHint": False},
    },
    {
        "name": "file_delete",
        "description": "Deletes a file of the VM.",
        "inputSchema": _object(["path"], path=_PATH),
        "annotations": {"destructiveHint": True, "openWorldHint": False},
    },
    {
        "name": "run_command",
        "description": "Runs a program in the VM, without a shell, and returns what it printed.",
        "inputSchema": _object(
            ["command"],
            command={"type": "string", "description": "Program, found by PATH."},
            args={"type": "array", "items": {"type": "string"}, "description": "Its arguments."},
        ),
        "outputSchema": _object(
            ["exit_code", "success", "stdout", "stderr", "truncated"],
            exit_code={"type": "integer"},
            success={"type": "boolean"},
            stdout={"type": "string"},
            stderr={"type": "string"},
            truncated={"type": "boolean"},
        ),
        "annotations": {"destructiveHint": True, "openWorldHint": True},
    },
]
"""What tools/list answers, in a stable order."""
