"""Pages of lists: sizes and opaque tokens that hold the last key of the page before."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field

if TYPE_CHECKING:
    from nexus_rpc.errors import InvalidArgument

DEFAULT_SIZE = 100
MAX_SIZE = 1000
_MAX_KEY = 2**63 - 1  # SQLite's largest integer
_MAX_TOKEN = 1024


def page_size(value: int) -> int:
    """Return the number of rows for a requested `page_size`. Raises InvalidArgument."""
    if value < 0:
        raise invalid_field("page_size", value, f"0 (meaning {DEFAULT_SIZE}) to {MAX_SIZE}")
    return min(value or DEFAULT_SIZE, MAX_SIZE)


def encode(key: int) -> str:
    """Return the token for the page after the row with the key `key`."""
    return base64.urlsafe_b64encode(b"%d" % key).decode()


def decode(token: str) -> int:
    """Return the key in `token`, 0 (which no row has) for the first page's empty one.

    Raises InvalidArgument.
    """
    if not token:
        return 0
    try:
        key = int(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        key = -1
    if not 0 <= key <= _MAX_KEY:
        raise _made_up(token)
    return key


def seal(scope: str, *key: str | int) -> str:
    """Return the token for the page after the row with the key `key`, in the list `scope`."""
    return base64.urlsafe_b64encode(json.dumps([scope, *key]).encode()).decode()


def unseal(scope: str, token: str, *kinds: type[str | int]) -> tuple[str | int, ...]:
    """Return the key in `token`, whose parts are of `kinds`; () for the first page's empty one.

    Raises InvalidArgument, of the token of another list too.
    """
    if not token:
        return ()
    if len(token) > _MAX_TOKEN:
        raise _made_up(token[:_MAX_TOKEN])
    try:
        parts = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or not parts or not isinstance(parts[0], str):
        raise _made_up(token)
    if parts[0] != scope:
        raise invalid_field(
            "page_token",
            token,
            "it continues a list with another filter or order: ask as for the page before, or "
            "leave page_token out to begin anew",
        )
    key = parts[1:]
    # Exact types: to Python, true is a number.
    if [type(part) for part in key] != [*kinds] or not all(_is_storable(part) for part in key):
        raise _made_up(token)
    return tuple(key)


def _is_storable(part: str | int) -> bool:
    if isinstance(part, int):
        return abs(part) <= _MAX_KEY
    return not any("\ud800" <= char <= "\udfff" for char in part)  # JSON can say them, UTF-8 cannot


def _made_up(token: str) -> InvalidArgument:
    return invalid_field(
        "page_token", token, "give the next_page_token of the page before, unchanged"
    )
