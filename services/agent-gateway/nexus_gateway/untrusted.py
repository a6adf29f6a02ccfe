"""Values that a guest sent, made harmless: right type, bounded, printable."""

from __future__ import annotations


def text(value: object, *, limit: int) -> str:
    """Return `value` as one printable line of at most `limit` characters; "" if it is no text."""
    if not isinstance(value, str):
        return ""
    kept = value[:limit]
    return "".join(char if char.isprintable() else " " for char in kept).strip()


def texts(value: object, *, count: int, limit: int) -> tuple[str, ...]:
    """Return the first `count` texts of a list, each as `text` does, empty ones left out."""
    if not isinstance(value, list):
        return ()
    return tuple(line for item in value[:count] if (line := text(item, limit=limit)))


def number(value: object, *, below: int) -> int | None:
    """Return `value` if it is an integer from 0 to below `below`, else None."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < below:
        return None
    return value
