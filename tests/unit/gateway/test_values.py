"""What guests and callers say, checked: untrusted values, reasons, operations, settings."""

import pytest

from nexus_gateway.operations import Command, check_mode, check_path
from nexus_gateway.reasons import error_of
from nexus_gateway.settings import McpSettings, Settings
from nexus_gateway.untrusted import number, text, texts
from nexus_rpc import errors
from nexus_rpc.errors import InvalidArgument
from nexus_rpc.settings import SettingsError, load


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("6.1.0-x", "6.1.0-x"),
        ("x" * 100, "x" * 10),
        ("a\x1b[2Jb\nc\x00", "a [2Jb c"),
        ("\u202eabc", "abc"),
        (None, ""),
        (7, ""),
        ({"a": 1}, ""),
    ],
)
def test_text(value, expected):
    assert text(value, limit=10) == expected


def test_texts():
    assert texts(["a", "", 3, "b", "c"], count=4, limit=5) == ("a", "b")
    assert texts("abc", count=4, limit=5) == ()


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (255, 255), (256, None), (-1, None), (True, None), ("1", None)]
)
def test_number(value, expected):
    assert number(value, below=256) == expected


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("FILE_NOT_FOUND", errors.NotFound),
        ("NOT_A_FILE", errors.FailedPrecondition),
        ("FILE_DENIED", errors.PermissionDenied),
        ("GUEST_DISK_FULL", errors.ResourceExhausted),
        ("COMMAND_NOT_FOUND", errors.NotFound),
        ("INVALID_FIELD", errors.InvalidArgument),
        ("GUEST_BUSY", errors.ResourceExhausted),
        ("GUEST_ERROR", errors.Internal),
    ],
)
def test_a_reason_of_the_table(reason, kind):
    error = error_of({"reason": reason, "message": "why"})
    assert type(error) is kind
    assert (error.reason, error.message) == (reason, "why")


@pytest.mark.parametrize("reason", ["VM_NOT_FOUND", "", None, 7, ["FILE_NOT_FOUND"], "x" * 1000])
def test_a_reason_that_is_not_the_guests_to_give(reason):
    assert error_of({"reason": reason}).reason == "GUEST_ERROR"


def test_a_message_of_any_length_fits_the_metadata_of_a_call():
    assert len(error_of({"reason": "GUEST_ERROR", "message": "é" * 100_000}).message) == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("true",) * 1025},
        {"argv": ("echo", "x" * (128 << 10))},
        {"argv": ("a\0b",)},
        {"argv": ("true",), "cwd": "relative"},
        {"argv": ("true",), "env": {"A=B": "c"}},
        {"argv": ("true",), "env": {"": "c"}},
        {"argv": ("true",), "env": {"A": "x\0"}},
        {"argv": ("true",), "env": {"A": "x" * (128 << 10)}},
        {"argv": ("true",), "stdin": bytes((1 << 20) + 1)},
    ],
)
def test_a_command_that_cannot_be(fields):
    with pytest.raises(InvalidArgument) as caught:
        Command(**fields)
    assert caught.value.reason == "INVALID_FIELD"


def test_a_command_at_its_bounds():
    command = Command(argv=("true",) * 1024, env={"A": ""}, cwd="/", stdin=bytes(1 << 20))
    assert command.request()["op"] == "exec"


@pytest.mark.parametrize("path", ["", "relative", "../x", "/a\0b", "/" + "x" * 4096])
def test_a_path_that_cannot_be(path):
    with pytest.raises(InvalidArgument, match="path"):
        check_path("path", path)


@pytest.mark.parametrize("mode", [-1, 0o10000])
def test_a_mode_that_cannot_be(mode):
    with pytest.raises(InvalidArgument, match="mode"):
        check_mode(mode)


def test_settings_from_a_file(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text('agent_ready_timeout = 5\n[mcp]\nlisten = "127.0.0.1:1"\n')
    settings = load(Settings, path)
    assert (settings.agent_ready_timeout, settings.mcp.listen) == (5.0, "127.0.0.1:1")
    assert settings.mcp.idle_seconds == McpSettings().idle_seconds


@pytest.mark.parametrize(
    "text",
    [
        "agent_ready_timeout = 0",
        "agent_ready_timeout = 301",
        '[mcp]\nlisten = "0.0.0.0:7710"',
        '[mcp]\nlisten = "127.0.0.1"',
    ],
)
def test_settings_that_cannot_be(tmp_path, text):
    path = tmp_path / "gateway.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match="expected"):
        load(Settings, path)
