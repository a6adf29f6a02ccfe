"""What a guest's ERROR means to the caller: one table from reason to error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus_gateway.untrusted import text
from nexus_rpc.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NexusError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_ERRORS: dict[str, type[NexusError]] = {
    "FILE_NOT_FOUND": NotFound,
    "NOT_A_FILE": FailedPrecondition,
    "FILE_DENIED": PermissionDenied,
    "GUEST_DISK_FULL": ResourceExhausted,
    "COMMAND_NOT_FOUND": NotFound,
    "INVALID_FIELD": InvalidArgument,
    "GUEST_BUSY": ResourceExhausted,
    "GUEST_ERROR": Internal,
}


def error_of(message: Mapping[str, object]) -> NexusError:
    """Return the error that a guest's ERROR frame stands for; an unknown reason: GUEST_ERROR."""
    reason = message.get("reason")
    if not isinstance(reason, str) or reason not in _ERRORS:
        reason = "GUEST_ERROR"
    said = text(message.get("message"), limit=400) or "the guest gave no message"
    return _ERRORS[reason](reason, said)
