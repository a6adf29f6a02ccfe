"""What can go wrong in a guest, in the reasons of gateway.proto."""

from __future__ import annotations

import errno


class GuestError(Exception):
    """An operation failed; `reason` is stable, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def invalid(field: str, value: object, expected: str) -> GuestError:
    """Return the error for a field of a request that is no good."""
    shown = ascii(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}..."
    return GuestError("INVALID_FIELD", f"{field} is {shown}, expected {expected}")


_REASONS = {
    errno.ENOENT: "FILE_NOT_FOUND",
    errno.ENOTDIR: "FILE_NOT_FOUND",
    errno.EISDIR: "NOT_A_FILE",
    errno.ENXIO: "NOT_A_FILE",
    errno.EACCES: "FILE_DENIED",
    errno.EPERM: "FILE_DENIED",
    errno.EROFS: "FILE_DENIED",
    errno.EBUSY: "FILE_DENIED",
    errno.ENOSPC: "GUEST_DISK_FULL",
    errno.EDQUOT: "GUEST_DISK_FULL",
    errno.EFBIG: "GUEST_DISK_FULL",
    errno.ENAMETOOLONG: "INVALID_FIELD",
    errno.ELOOP: "INVALID_FIELD",
    errno.E2BIG: "INVALID_FIELD",
    errno.EAGAIN: "GUEST_BUSY",
    errno.EMFILE: "GUEST_BUSY",
    errno.ENFILE: "GUEST_BUSY",
    errno.ENOMEM: "GUEST_BUSY",
}


def from_os_error(error: OSError, subject: str) -> GuestError:
    """Return the error for what the kernel said about `subject`, a path or a program."""
    reason = _REASONS.get(error.errno or 0, "GUEST_ERROR")
    return GuestError(reason, f"{subject}: {error.strerror or error}")
