from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nexus.vmm.v1 import vmm_pb2
from nexusctl import views
from nexusctl.commands.vm_logs import tail
from nexusctl.terminal import plain_console

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (90000, "1d"), (-5, "0s")],
)
def test_age(seconds, age):
    when = Timestamp()
    when.FromDatetime(NOW - timedelta(seconds=seconds))
    assert views.age(when, NOW) == age


def test_every_state_has_its_word_and_style():
    words = {views.vm_state(state) for state in vmm_pb2.VmState.values() if state}
    assert words <= views.STYLES.keys()


def test_a_vm_without_times_or_network():
    shown = views.vm(vmm_pb2.Vm(name="x"))
    assert (shown["create_time"], shown["address"], shown["spec"]["network"]) == (None, None, None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(None, b"a\nb\nc"), (1, b"c"), (2, b"b\nc"), (9, b"a\nb\nc")],
)
def test_tail(lines, expected):
    assert tail(b"a\nb\nc", lines) == expected


def test_a_console_on_a_terminal_keeps_text_and_shows_control():
    assert plain_console("ü\tx\r\n".encode()) == "ü\tx\n".encode()
    assert plain_console(b"\x1b[2J\x7f\x00") == b"^[[2J^?^@"
    assert plain_console(b"\xff\x9b") == "��".encode()
