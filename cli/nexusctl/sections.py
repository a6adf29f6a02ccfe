"""A dictionary for people: its name, and a line for each value that there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nexusctl.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_INDENT = 16


def show(title: str, values: Mapping[str, Any] | None) -> None:
    """Print what is there; empty values, and a section that is None, are left out."""
    if values is None:
        return
    print(title)
    for key, value in values.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        if text not in ("", None, 0):
            print(f"  {key:<{_INDENT}}{printable(str(text))}")
