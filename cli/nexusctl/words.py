"""The words that stand for values of enums, in output and on the command line."""

from __future__ import annotations

from typing import Any


def word(enum: Any, value: int, prefix: str) -> str:  # noqa: ANN401  # protobuf's enum wrappers share no type
    """Return the value's name without `prefix`, in small letters; an unknown one as its number."""
    if value not in enum.values():
        return f"unknown ({value})"
    name: str = enum.Name(value)
    return name.removeprefix(prefix).lower()
