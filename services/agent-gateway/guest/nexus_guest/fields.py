"""Reads the fields of a request. A missing or wrong one is INVALID_FIELD, and named."""

from __future__ import annotations

from nexus_guest.errors import invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PATH = 4096
"""Linux's PATH_MAX, with the zero byte at the end."""


def text(message: Mapping[str, object], field: str, default: str | None = None) -> str:
    """Return a string without zero bytes; `default`, if there is one, for none or an empty one."""
    value = message.get(field)
    if default is not None and value in (None, ""):
        return default
    if not isinstance(value, str) or "\0" in value:
        raise invalid(field, value, "a string without zero bytes")
    return value


def path(message: Mapping[str, object], field: str, default: str | None = None) -> str:
    """Return an absolute path."""
    value = text(message, field, default)
    if not value.startswith("/") or len(value.encode()) >= MAX_PATH:
        raise invalid(field, value, f"an absolute path below {MAX_PATH} bytes")
    return value


def texts(message: Mapping[str, object], field: str) -> list[str]:
    """Return a list of strings without zero bytes; missing or null is empty."""
    value = message.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(field, value, "a list of strings")
    return [text({f"{field}[{i}]": item}, f"{field}[{i}]") for i, item in enumerate(value)]


def environment(message: Mapping[str, object], field: str) -> dict[str, str]:
    """Return names and values for a process; missing or null is empty."""
    value = message.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(field, value, "an object of strings")
    for name in value:
        if not name or "=" in name or "\0" in name:
            raise invalid(field, name, "names without '=' and zero bytes")
    return {name: text(value, name) for name in value}


def mode(message: Mapping[str, object], field: str) -> int | None:
    """Return permission bits, or None if the field is missing or null."""
    value = message.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o7777:
        raise invalid(field, value, "permission bits, 0 to 0o7777")
    return value


def number(message: Mapping[str, object], field: str, default: int, most: int) -> int:
    """Return a whole number from 0 to `most`; `default` if it is missing or null."""
    value = message.get(field)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise invalid(field, value, f"a whole number from 0 to {most}")
    return value


def flag(message: Mapping[str, object], field: str) -> bool:
    """Return a boolean; missing or null is false."""
    value = message.get(field)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid(field, value, "true or false")
    return value
