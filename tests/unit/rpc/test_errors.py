import grpc
import pytest

from nexus_rpc import errors
from nexus_rpc.errors import NexusError, from_rpc_error, invalid_field, to_status


def _as_rpc_error(status: grpc.Status) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        status.code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*status.trailing_metadata),
        details=status.details,
    )


@pytest.mark.parametrize("kind", NexusError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_itself(kind):
    sent = kind("SOME_REASON", "what happened", vm="hello")

    got = from_rpc_error(_as_rpc_error(to_status(sent)))

    assert type(got) is kind
    assert (got.reason, got.message, got.metadata) == (
        "SOME_REASON",
        "what happened",
        {"vm": "hello"},
    )


def test_codes_are_distinct():
    codes = [kind.code for kind in NexusError.__subclasses__()]
    assert len(set(codes)) == len(codes)


def test_a_status_of_grpc_itself_keeps_its_code():
    refused = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="refused"
    )
    got = from_rpc_error(refused)
    assert type(got) is errors.Unavailable
    assert got.reason == "UNAVAILABLE"


def test_a_foreign_detail_is_not_taken_for_ours():
    status = to_status(errors.NotFound("VM_NOT_FOUND", "no"))
    key, value = status.trailing_metadata[0]
    foreign = grpc.aio.AioRpcError(
        grpc.StatusCode.NOT_FOUND,
        grpc.aio.Metadata(),
        grpc.aio.Metadata((key, value.replace(b"nexus", b"other"))),
        details="no",
    )
    assert from_rpc_error(foreign).reason == "NOT_FOUND"


def test_a_bad_field_names_field_value_and_way_out_and_is_bounded():
    error = invalid_field("name", "x" * 10_000, "at most 63 characters")
    assert error.metadata == {"field": "name"}
    assert error.reason == "INVALID_FIELD"
    assert error.message.startswith("name is 'xxx")
    assert error.message.endswith("at most 63 characters")
    assert len(error.message) < 300
