"""Pages of lists: sizes and opaque tokens that hold the last key of the page before."""

from __future__ import annotations

import base64
import binascii

from nexus_rpc.errors import invalid_field

DEFAULT_SIZE = 100
MAX_SIZE = 1000
_MAX_KEY = 2**63 - 1  # SQLite's largest integer


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
        raise invalid_field(
            "page_token", token, "give the next_page_token of the page before, unchanged"
        )
    return key
