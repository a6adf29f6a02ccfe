"""What can be asked of a guest, checked before it is dialled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_STDIN = 1 << 20
_MAX_ARGUMENTS = 1024
_MAX_ARGUMENT_BYTES = 128 << 10
_MAX_PATH = 4096  # PATH_MAX, limits.h


@dataclass(frozen=True)
class Command:
    """A program to run. InvalidArgument (INVALID_FIELD) for what no guest could run."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    stdin: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= len(self.argv) <= _MAX_ARGUMENTS or not self.argv[0]:
            raise invalid_field(
                "argv", self.argv[:3], f"a program and its arguments, 1 to {_MAX_ARGUMENTS}"
            )
        size = sum(len(text.encode()) + 1 for text in self.argv)
        if size > _MAX_ARGUMENT_BYTES:
            raise invalid_field("argv", f"{size} bytes", f"at most {_MAX_ARGUMENT_BYTES} bytes")
        size = sum(len(text.encode()) + 1 for pair in self.env.items() for text in pair)
        if size > _MAX_ARGUMENT_BYTES:
            raise invalid_field("env", f"{size} bytes", f"at most {_MAX_ARGUMENT_BYTES} bytes")
        for name in self.env:
            if not name or "=" in name:
                raise invalid_field("env", name, "a name without '='")
        for text in (*self.argv, *self.env, *self.env.values()):
            if "\0" in text:
                raise invalid_field("argv or env", text, "text without NUL")
        if self.cwd:
            check_path("cwd", self.cwd)
        if len(self.stdin) > MAX_STDIN:
            raise invalid_field(
                "stdin", f"{len(self.stdin)} bytes", f"at most {MAX_STDIN}; write a file instead"
            )

    def request(self) -> dict[str, object]:
        """Return the REQUEST that starts it."""
        return {"op": "exec", "argv": list(self.argv), "env": dict(self.env), "cwd": self.cwd}


def check_path(name: str, path: str) -> str:
    """Return `path` if it is absolute and can exist. InvalidArgument (INVALID_FIELD)."""
    if not path.startswith("/") or "\0" in path or len(path.encode()) > _MAX_PATH:
        raise invalid_field(name, path, f"an absolute path of at most {_MAX_PATH} bytes")
    return path


def check_mode(mode: int | None) -> int | None:
    """Return `mode` if it is permission bits. InvalidArgument (INVALID_FIELD)."""
    if mode is not None and not 0 <= mode <= 0o7777:
        raise invalid_field("mode", oct(mode), "permission bits, 0 to 0o7777")
    return mode
