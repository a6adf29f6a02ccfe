"""netd as a process: kills, settings, children, capabilities."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from netd_ports import attach, check_agreement, list_ports
from netd_process import configure, refused, running
from netns import FIRST, entered

from nexus.netd.v1 import netd_pb2 as pb
from nexus_rpc.errors import from_rpc_error
from nexus_rpc.ids import new_vm_id

ROOT = Path(__file__).parents[3]


WATCH_FORKS = ROOT / "tests/support/watch_forks.py"


AS_NETD = ROOT / "tests/support/as_netd.py"


NETD_UID = 4343


async def test_settings_that_cannot_be_used_stop_it_with_a_clear_word(namespace, tmp_path):
    configure(tmp_path, subnet="172.16.0.0/31")
    with pytest.raises(AssertionError, match=r"netd\.toml: subnet is '172\.16\.0\.0/31'"):
        await _start(tmp_path)
    configure(tmp_path)
    async with running(tmp_path) as netd:
        await attach(netd)
    configure(tmp_path, subnet="10.0.0.0/8")
    with pytest.raises(AssertionError, match=r"1 ports have addresses of 172\.16\.0\.0/12"):
        await _start(tmp_path)


async def _start(directory):
    async with running(directory):
        pass


async def test_it_has_no_children_and_stops_in_order(netd):
    with entered(FIRST):  # the only one where the kernel tells of processes
        watcher = await asyncio.create_subprocess_exec(
            sys.executable,
            WATCH_FORKS,
            str(netd.process.pid),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    assert await watcher.stdout.readline() == b"watching\n"
    for vm in [new_vm_id() for _ in range(10)]:
        await attach(netd, vm)
        await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=vm))
    await netd.stub.CleanupNetwork(pb.CleanupNetworkRequest())
    await netd.stub.EnsureNetwork(pb.EnsureNetworkRequest())
    out, _ = await watcher.communicate(b"\n")
    assert json.loads(out)["ours"] == []
    netd.process.send_signal(signal.SIGTERM)
    assert await netd.process.wait() == 0


def _status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


@pytest.fixture
def open_directory():
    """A directory of netd's user, where pytest's own is closed to it."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, NETD_UID, NETD_UID)
        yield Path(directory)


def as_netd(capabilities):
    return (sys.executable, AS_NETD, str(NETD_UID), capabilities, str(ROOT))


async def test_without_the_capability_each_call_says_so(namespace, open_directory):
    configure(open_directory)
    async with running(open_directory, *as_netd("-all")) as netd:
        error = from_rpc_error(await refused(attach(netd)))
        assert error.reason == "KERNEL"
        assert "Operation not permitted" in str(error)
        assert await list_ports(netd) == []


async def test_one_capability_and_an_ordinary_user_are_enough(namespace, open_directory):
    configure(open_directory)
    async with running(open_directory, *as_netd("-all,+net_admin")) as netd:
        fields = _status(netd.process.pid)
        assert {fields[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {f"{1 << 12:016x}"}
        assert fields["Uid"].split() == [str(NETD_UID)] * 4
        assert fields["NoNewPrivs"] == "1"
        ports = [await attach(netd) for _ in range(3)]
        await netd.stub.DetachPort(pb.DetachPortRequest(vm_id=ports[1].vm_id))
        await check_agreement(netd)
        removed = await netd.stub.CleanupNetwork(pb.CleanupNetworkRequest())
        assert (removed.leases, list(removed.bridges)) == (2, ["nexbr0"])
