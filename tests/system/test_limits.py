"""Settings, budgets and balloons against real VMs."""

import json

import pytest


@pytest.fixture
def settings(devhost):
    """Set settings; those of before are brought back."""
    before = devhost.json("config", "list")["version"]

    def change(*values):
        devhost.nexusctl("config", "set", *values)

    yield change
    devhost.nexusctl("config", "rollback", str(before))


def test_what_a_quota_refuses_leaves_nothing(devhost, hello, snapshot, settings):
    settings("quota.tags=team=none: vms=0")
    before = (snapshot(), devhost.json("vm", "list")["vms"])
    done = devhost.nexusctl("vm", "create", "toomany", "--tag", "team=none", check=False)
    assert done.returncode == 1
    assert "0 of 0 are free for VMs with team=none" in done.stderr.decode()
    assert (snapshot(), devhost.json("vm", "list")["vms"]) == before


def test_a_start_without_room_is_refused_and_works_once_there_is(devhost, hello, settings):
    devhost.nexusctl("vm", "create", "waiting", "--no-network")
    try:
        settings("capacity.memory_mib=80")
        done = devhost.nexusctl("vm", "start", "waiting", check=False)
        assert done.returncode == 1
        assert "of 80 are free" in done.stderr.decode()
        vm = devhost.json("vm", "inspect", "waiting")
        assert (vm["state"], vm["history"]) == ("created", [])
        settings("capacity.memory_mib=")
        devhost.nexusctl("vm", "start", "waiting", timeout=180)
    finally:
        devhost.nexusctl("vm", "delete", "waiting", "--force", "--yes")


def test_status_tells_what_is_used(devhost, hello):
    told = json.loads(devhost.nexusctl("status", "--json").stdout)["capacity"]
    by_what = {one["what"]: one for one in told}
    assert by_what["memory_mib"]["used"] >= 80
    assert 0 < by_what["vms"]["used"] < by_what["vms"]["limit"]


def test_firecracker_takes_a_balloon(devhost, make_vm):
    name = make_vm("balloonist", "--no-network", "--balloon")
    for amount in ("16", "0"):
        devhost.nexusctl("vm", "balloon", name, amount)
    done = devhost.nexusctl("vm", "balloon", name, "1G", check=False)
    assert (done.returncode, b"less than the VM's memory" in done.stderr) == (1, True)
    assert devhost.exec(name, "true").returncode == 0
