"""The environment that a login gives, read from the image's own files."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MAX_FILE = 1 << 20


def environment(passwd: str = "/etc/passwd", variables: str = "/etc/environment") -> dict[str, str]:  # noqa: S107
    """Return HOME, USER, LOGNAME, SHELL, PATH, LANG and what /etc/environment sets.

    Images without these files get what they would hold for root.
    """
    user, home, shell = _account(_lines(passwd), os.getuid())
    login = {"PATH": PATH, "LANG": "C.UTF-8", **_assignments(_lines(variables))}
    return {**login, "HOME": home, "USER": user, "LOGNAME": user, "SHELL": shell}


def home(env: Mapping[str, str]) -> str:
    """Return the home directory that `env` names, or `/` where the image does not have it."""
    return env["HOME"] if os.path.isdir(env["HOME"]) else "/"


def _lines(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_FILE).decode(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _account(lines: list[str], uid: int) -> tuple[str, str, str]:
    for line in lines:
        entry = line.split(":")
        if len(entry) == 7 and entry[2] == str(uid):
            return entry[0], entry[5] or "/", entry[6] or "/bin/sh"
    return "root", "/root", "/bin/sh"


def _assignments(lines: list[str]) -> dict[str, str]:
    """Parse as pam_env(8) does: KEY=VALUE, optional `export`, quotes and comments."""
    found = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or name.startswith("#") or "\0" in line:
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    return found
