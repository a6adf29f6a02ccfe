import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from guest_agent import PATIENCE_S, Agent, start

from nexus_guest import VERSION, wire
from nexus_guest.wire import Kind


@pytest.fixture
def control(agent):
    return agent.connect(wire.CONTROL_PORT)


def ask(host, op, **fields):
    host.request(op, **fields)
    return host.message(Kind.REPLY)


def test_hello(control):
    hello = ask(control, "hello")
    assert hello["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert hello["agent_version"] == VERSION
    assert hello["kernel"] == os.uname().release
    assert "Debian" in hello["os"]


def test_requests_are_answered_in_order(control):
    for op in ("ping", "hello", "ping"):
        control.request(op)
    assert control.message(Kind.REPLY) == {}
    assert control.message(Kind.REPLY)["boot_id"]
    assert control.message(Kind.REPLY) == {}


def test_a_bad_request_leaves_the_connection(control):
    control.request("fly")
    assert control.error() == "INVALID_FIELD"
    assert ask(control, "ping") == {}


def test_configure_can_be_repeated(control):
    network = {
        "mac": "02:fc:00:00:00:01",
        "ipv4": "172.16.0.2/12",
        "gateway": "172.16.0.1",
        "dns": ["8.8.8.8"],
    }
    for _ in range(2):
        # Outside of a VM nothing is set, and a warning says so.
        assert len(ask(control, "configure", hostname="a", network=network)["warnings"]) == 1
    assert ask(control, "configure", hostname="a", network=None)["warnings"]


@pytest.mark.parametrize(
    "network",
    [
        [],
        {},
        {"mac": "02:fc", "ipv4": "172.16.0.2/12", "gateway": "172.16.0.1"},
        {"mac": "02:fc:00:00:00:01", "ipv4": "172.16.0.2", "gateway": "172.16.0.1"},
        {"mac": "02:fc:00:00:00:01", "ipv4": "172.16.0.2/33", "gateway": "172.16.0.1"},
        {"mac": "02:fc:00:00:00:01", "ipv4": "::1/12", "gateway": "172.16.0.1"},
        {"mac": "02:fc:00:00:00:01", "ipv4": "172.16.0.2/12", "gateway": "gw"},
        {"mac": "02:fc:00:00:00:01", "ipv4": "172.16.0.2/12", "gateway": "1.1.1.1", "dns": ["x"]},
    ],
)
def test_bad_network(control, network):
    control.request("configure", hostname="a", network=network)
    assert control.error() == "INVALID_FIELD"


def test_shutdown_answers_first(tmp_path):
    process = start(tmp_path)
    with contextlib.ExitStack() as hosts:
        control = Agent(tmp_path, process.pid, hosts).connect(wire.CONTROL_PORT)
        assert ask(control, "shutdown") == {}
        assert control.receive() is None
    assert process.wait(PATIENCE_S) == 0


def test_usage():
    argv = [sys.executable, "-m", "nexus_guest", "--help"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "--unix" in done.stderr
