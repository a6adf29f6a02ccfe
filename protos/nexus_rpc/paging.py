"""Pages of lists: sizes and opaque tokens that hold the last key of the page before."""

from __future__ import annotations

import base64
import binascii

from nexus_rpc.errors import invalid_field

DEFAULT_SIZE = 100
MAX_SIZE = 1000


def page_size(value: int) -> int:
    """Return the number of rows for a requested `page_size`. Raises InvalidArgument."""
    if value < 0:
        raise invalid_field("page_size", value, f"0 (meaning {DEFAULT_SIZE}) to {MAX_SIZE}")
    return min(value or DEFAULT_SIZE, MAX_SIZE)


def encode(key: str) -> str:
    """Return the token for the page after `key`."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def decode(token: str) -> str:
    """Return the key in `token`. Raises InvalidArgument."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_field(
            "page_token", token, "give the next_page_token of the page before, unchanged"
        ) from None
