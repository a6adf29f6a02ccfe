import pytest

from nexus_guest import fields
from nexus_guest.errors import GuestError, from_os_error, invalid


def reason(function, *arguments):
    with pytest.raises(GuestError) as caught:
        function(*arguments)
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (fields.text, 1),
        (fields.text, None),
        (fields.text, "a\0"),
        (fields.path, "relative"),
        (fields.path, "/" + "ä" * 2048),
        (fields.texts, "text"),
        (fields.texts, [1]),
        (fields.environment, ["A=1"]),
        (fields.environment, {"": "1"}),
        (fields.environment, {"A=": "1"}),
        (fields.environment, {"A": None}),
        (fields.mode, -1),
        (fields.mode, 0o10000),
        (fields.mode, True),
        (fields.mode, "0644"),
        (fields.flag, 1),
    ],
)
def test_wrong_values_are_named(function, value):
    code, message = reason(function, {"field": value}, "field")
    assert code == "INVALID_FIELD"
    assert "expected" in message


def test_right_values():
    message = {"text": "ä", "path": "/a", "list": ["x"], "env": {"A": "="}, "mode": 0o7777}
    assert fields.text(message, "text") == "ä"
    assert fields.path(message, "path") == "/a"
    assert fields.path({"cwd": ""}, "cwd", "/home") == "/home"
    assert fields.texts(message, "list") == ["x"]
    assert fields.environment(message, "env") == {"A": "="}
    assert fields.mode(message, "mode") == 0o7777


def test_left_out_values():
    assert fields.texts({}, "list") == []
    assert fields.environment({"env": None}, "env") == {}
    assert fields.mode({}, "mode") is None
    assert fields.flag({}, "parents") is False


def test_long_values_are_cut_and_quoted():
    message = invalid("field", "\x1b[31m" + "x" * 1000, "less").message
    assert len(message) < 200
    assert "\x1b" not in message


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (2, "FILE_NOT_FOUND"),
        (13, "FILE_DENIED"),
        (28, "GUEST_DISK_FULL"),
        (21, "NOT_A_FILE"),
        (24, "GUEST_BUSY"),
        (5, "GUEST_ERROR"),
    ],
)
def test_errno_has_a_reason(number, expected):
    error = from_os_error(OSError(number, "words"), "/a")
    assert (error.reason, error.message) == (expected, "/a: words")
