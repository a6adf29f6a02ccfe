"""The tags of a VM: labels, to list VMs and to set quotas by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nexus_rpc.errors import invalid_field

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST = 32

_KEY = re.compile(r"[a-z][a-z0-9._/-]{0,62}")
_VALUE = re.compile(r"[ -~]{0,63}")


def check_tags(field: str, tags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return `tags`, the value of `field`, sorted by key. Raises InvalidArgument."""
    if len(tags) > MOST:
        raise invalid_field(field, f"{len(tags)} tags", f"at most {MOST}")
    for key, value in tags.items():
        if _KEY.fullmatch(key) is None:
            raise invalid_field(
                field, key, "a key is 1 to 63 of a-z, 0-9, '.', '_', '/', '-', and begins with a-z"
            )
        if _VALUE.fullmatch(value) is None:
            raise invalid_field(f"{field}.{key}", value, "at most 63 printable characters of ASCII")
    return tuple(sorted(tags.items()))
