"""VM ids and names, as every service checks them.

An id is 63 random bits as 13 characters of unpadded lowercase base32 (RFC 4648). A name is a
DNS label; one that reads as an id is refused, so that `vm` in a request is never ambiguous.
"""

from __future__ import annotations

import base64
import re
import secrets
from functools import lru_cache

from nexus_rpc.errors import invalid_field

_ID = re.compile(r"[a-z2-7]{13}")
_FIRST_UID = 0x70000000
_UID_BITS = 0x0FFFFFFF
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def new_vm_id() -> str:
    """Return a fresh id."""
    raw = (secrets.randbits(63) << 1).to_bytes(8, "big")
    return base64.b32encode(raw).decode().rstrip("=").lower()


def is_vm_id(text: str) -> bool:
    """Whether `text` has the form of an id."""
    return _ID.fullmatch(text) is not None


@lru_cache(4096)
def vm_uid(vm_id: str) -> int:
    """Return the user and group id on the host that the process of the VM `vm_id` runs as.

    The low 28 bits of the id, in a range that systemd leaves to nobody (0x70000000 to 0x7FFFFFFF;
    UIDS-GIDS.md). No service has to remember it. Two VMs whose ids share one are refused when the
    second is made.
    """
    raw = int.from_bytes(base64.b32decode(vm_id.upper() + "==="), "big")
    return _FIRST_UID | ((raw >> 1) & _UID_BITS)


def is_vm_uid(uid: int) -> bool:
    """Whether `uid` is one that `vm_uid` gives to some id."""
    return uid & ~_UID_BITS == _FIRST_UID


def check_vm_id(field: str, value: str) -> str:
    """Return `value` if it is an id. Raises InvalidArgument."""
    if not is_vm_id(value):
        raise invalid_field(field, value, "a VM id is 13 characters of a-z and 2-7")
    return value


def check_name(field: str, value: str) -> str:
    """Return `value` if it can name a VM. Raises InvalidArgument."""
    if _NAME.fullmatch(value) is None:
        raise invalid_field(
            field, value, "a name is 1 to 63 of a-z, 0-9 and '-', and begins and ends without '-'"
        )
    if is_vm_id(value):
        raise invalid_field(field, value, "this reads as a VM id; choose another name")
    return value


def check_vm_ref(field: str, value: str) -> str:
    """Return `value` if it can be an id or a name. Raises InvalidArgument."""
    return value if is_vm_id(value) else check_name(field, value)
