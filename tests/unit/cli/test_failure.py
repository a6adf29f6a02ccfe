import io

import pytest

from nexus_rpc import errors
from nexusctl.failure import _TRY, Failure, of, of_command, tell


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound, 4),
        (errors.AlreadyExists, 5),
        (errors.FailedPrecondition, 5),
        (errors.Unavailable, 3),
        (errors.InvalidArgument, 1),
        (errors.ResourceExhausted, 1),
        (errors.PermissionDenied, 1),
        (errors.DeadlineExceeded, 1),
        (errors.DataLoss, 1),
        (errors.Internal, 1),
    ],
)
def test_exit_codes(error, code):
    assert of(error("ANY", "message"), {}).exit_code == code
    assert of_command(error("ANY", "message"), {}).exit_code == 125


def test_a_guest_that_does_not_answer_is_no_service_that_is_down():
    assert of(errors.Unavailable("GUEST_UNREACHABLE", "no agent"), {}).exit_code == 1


@pytest.mark.parametrize(("reason", "code"), [("COMMAND_NOT_FOUND", 127), ("FILE_DENIED", 126)])
def test_commands_that_cannot_be_run_are_told_as_a_shell_does(reason, code):
    assert of_command(errors.NotFound(reason, "message"), {}).exit_code == code


def test_the_way_out_has_the_words_of_the_command():
    error = errors.Unavailable("SOCKET_DENIED", "no", group="nexus-vmm", user="ada")
    assert of(error, {}).way_out == "sudo usermod -aG nexus-vmm ada, then log in again"
    assert (
        "start hello" in of(errors.FailedPrecondition("VM_NOT_LIVE", "no"), {"vm": "hello"}).way_out
    )
    assert "start VM" in of(errors.FailedPrecondition("VM_NOT_LIVE", "no"), {}).way_out


@pytest.mark.parametrize("reason", _TRY)
def test_every_way_out_can_be_told_without_any_word(reason):
    assert "{" not in of(errors.Internal(reason, "message"), {}).way_out


def test_the_users_own_words_go_before_the_services():
    error = errors.FailedPrecondition("VM_NOT_LIVE", "no", vm="abcdefghijklm")
    assert of(error, {"vm": "hello"}).way_out == "nexusctl vm start hello"
    assert of(error, {"vm": ""}).way_out == "nexusctl vm start abcdefghijklm"


def test_what_the_service_says_is_no_format():
    assert of(errors.Internal("DEFECT", "a {vm} b"), {"vm": "x"}).message == "a {vm} b"
    told = of(errors.FailedPrecondition("VM_NOT_LIVE", ""), {"vm": "{service}"})
    assert told.way_out == "nexusctl vm start {service}"


def test_notes_are_told_with_it():
    error = errors.Internal("DEFECT", "it broke")
    error.add_note("hello was started")
    assert of(error, {}).message == "it broke; hello was started"


def test_tell():
    stream = io.StringIO()
    assert tell(Failure("a\x1b[2J\nb", "do this", 4), stream) == 4
    assert stream.getvalue() == "nexusctl: a?[2J?b\ntry: do this\n"
    stream = io.StringIO()
    tell(Failure("a"), stream)
    assert stream.getvalue() == "nexusctl: a\n"
