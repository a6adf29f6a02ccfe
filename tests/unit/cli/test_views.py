from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from nexus.netd.v1 import netd_pb2
from nexus.vmm.v1 import vmm_pb2
from nexusctl import net_views, views
from nexusctl.commands.status import exit_code
from nexusctl.terminal import PlainConsole

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


def test_a_console_on_a_terminal_keeps_text_and_shows_control():
    assert PlainConsole().more("ü\tx\r\n".encode()) == "ü\tx\n".encode()
    assert PlainConsole().more(b"\x1b[2J\x7f\x00") == b"^[[2J^?^@"
    assert PlainConsole().more(b"\xff\x9b") == "��".encode()


def test_what_a_cut_parts_is_shown_as_one():
    console = PlainConsole()
    assert b"".join(console.more(bytes([byte])) for byte in "ü\r\n\rx".encode()) == (
        "ü\n^Mx".encode()
    )


@pytest.mark.parametrize(
    ("netd", "dns", "code"),
    [
        ("serving", "serving", 0),
        ("serving", "denied", 0),
        ("serving", "unreachable", 3),
        ("denied", "serving", 3),
        ("not serving", "denied", 1),
    ],
)
def test_who_may_not_ask_the_resolver_misses_nothing(netd, dns, code):
    rows = [{"name": "netd", "health": netd}, {"name": "dns", "health": dns}]
    assert exit_code(rows, {}) == code


def test_a_network_that_this_release_knows_too_little_of():
    rule = netd_pb2.EgressRule(protocol=9, first_port=1)
    policy = netd_pb2.EgressPolicy(mode=9, rules=[rule])
    assert net_views.policy(policy) == {"mode": "9", "rules": [{"allow": "any:1/9"}]}
    port = net_views.port(netd_pb2.Port())
    assert (port["counters"], port["create_time"], port["policy"]["own"]) == (None, None, False)
