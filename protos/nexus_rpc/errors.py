"""Errors of the domain, and the one table between them and gRPC status.

A servicer raises a `NexusError`; `nexus_rpc.interceptors` turns it into a status that carries
`google.rpc.ErrorInfo`, and `from_rpc_error` turns that back into the same error at the client.
"""

from __future__ import annotations

from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "nexus"
_DETAILS_KEY = "grpc-status-details-bin"
_SHOWN = 128


class NexusError(Exception):
    """An error with a stable `reason`, a message for people, and metadata for programs."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata


class InvalidArgument(NexusError):
    """The request is wrong whatever the state of the system."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(NexusError):
    """What the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(NexusError):
    """What the request would make exists, and is something else."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(NexusError):
    """The system is not in the state that the request needs."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(NexusError):
    """Something is used up: addresses, disk, a queue."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDenied(NexusError):
    """The caller, or the guest's user, may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(NexusError):
    """The caller has not shown who it is."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Unavailable(NexusError):
    """It cannot be done now; the same request may work later."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(NexusError):
    """The request's time ran out."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class DataLoss(NexusError):
    """What came back is not what was sent, or is no message at all."""

    code = grpc.StatusCode.DATA_LOSS


class Cancelled(NexusError):
    """The caller gave the request up."""

    code = grpc.StatusCode.CANCELLED


class Internal(NexusError):
    """A defect of Nexus."""

    code = grpc.StatusCode.INTERNAL


_BY_CODE: dict[grpc.StatusCode, type[NexusError]] = {
    cls.code: cls for cls in NexusError.__subclasses__()
}


def invalid_field(field: str, value: object, expected: str) -> InvalidArgument:
    """Return the error for a bad field: it names the field, the value, and what is expected."""
    shown = repr(value)
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "..."
    return InvalidArgument("INVALID_FIELD", f"{field} is {shown}: {expected}", field=field)


def to_status(error: NexusError) -> grpc.Status:
    """Return `error` as the status of a call, with ErrorInfo among its details."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    detail = any_pb2.Any()
    detail.Pack(info)
    number: int = error.code.value[0]
    status = status_pb2.Status(code=number, message=error.message, details=[detail])
    return _Status(error.code, error.message, ((_DETAILS_KEY, status.SerializeToString()),))


class _Status(grpc.Status):
    """A plain holder, as `grpc.ServicerContext.abort_with_status` wants it."""

    def __init__(
        self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        self.code = code
        self.details = details
        self.trailing_metadata = metadata


def from_rpc_error(error: grpc.aio.AioRpcError) -> NexusError:
    """Return the domain error that a call ended with.

    A status that Nexus did not make (a refused connection, a deadline) keeps its code, with the
    code's name as the reason.
    """
    cls = _BY_CODE.get(error.code(), NexusError)
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Unpack(info) and info.domain == DOMAIN:
                return cls(info.reason, error.details() or "", **dict(info.metadata))
    return cls(error.code().name, error.details() or "")
