"""What the services may do, read from /proc; and that none of them ever forks."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from devhost import ROOT

CAP_NET_ADMIN = 1 << 12


@pytest.mark.parametrize(
    ("service", "allowed"), [("vmm", 0), ("gateway", 0), ("dns", 0), ("netd", CAP_NET_ADMIN)]
)
def test_capabilities(devhost, hello, main_pid, service, allowed):
    status = dict(
        line.split(":\t", 1)
        for line in devhost.out(f"cat /proc/{main_pid(service)}/status").splitlines()
        if ":\t" in line
    )
    assert int(status["CapEff"], 16) == allowed
    assert int(status["CapPrm"], 16) == allowed
    assert int(status["CapBnd"], 16) == allowed
    assert int(status["NoNewPrivs"]) == 1
    assert "0" not in status["Uid"].split()
    assert int(status["Seccomp"]) == 2


def test_firecracker_has_no_capability(devhost, hello):
    pid = devhost.json("vm", "inspect", hello)["pid"]
    lines = devhost.out(f"cat /proc/{pid}/status").splitlines()
    assert "CapEff:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines


def test_no_service_forks_under_load(devhost, hello, main_pid, make_vm):
    pids = [main_pid(service) for service in ("vmm", "netd", "gateway", "dns")]
    devhost.run("cat > /root/forks.py", stdin=(ROOT / "tests/support/watch_forks.py").read_bytes())
    watcher = devhost.start(f"python3 -u /root/forks.py {' '.join(map(str, pids))}")
    assert watcher.stdout.readline() == b"watching\n"

    # A fork of another process is seen, so the watcher can see.
    devhost.run("true")
    make_vm("loaded")
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(lambda _: devhost.exec(hello, "echo", "x"), range(16)):
            assert done.stdout == b"x\n"
    devhost.nexusctl("vm", "list")

    seen = json.loads(watcher.communicate(b"\n", timeout=60)[0])
    assert seen["others"] > 0
    assert seen["ours"] == []
    assert [main_pid(service) for service in ("vmm", "netd", "gateway", "dns")] == pids


def test_vmm_may_manage_vms_and_no_other_unit(devhost, hello):
    as_vmm = "setpriv --reuid nexus-vmm --regid nexus-vmm --init-groups systemctl"
    for unit in (
        "nexus-netd.service",
        "ssh.service",
        "nexus-vm@../evil.service",
        "nexus-vm@X.service",
    ):
        assert devhost.run(f"{as_vmm} stop {unit}", check=False).returncode != 0, unit
    transient = "setpriv --reuid nexus-vmm --regid nexus-vmm --init-groups systemd-run"
    for unit in ("evil", "nexus-vm@aaaaaaaaaaaaa"):
        assert devhost.run(f"{transient} --unit {unit} true", check=False).returncode != 0


def test_a_vm_process_sees_no_other_vm(devhost, hello):
    vm = devhost.json("vm", "inspect", hello)
    seen = f"/proc/{vm['pid']}/root"
    devhost.run("mkdir -p /run/nexus/vms/aaaaaaaaaaaaa")  # as of another VM
    try:
        for place in ("/run/nexus/vms", "/var/lib/nexus/vms"):
            assert devhost.out(f"ls {seen}{place}") == vm["id"]
        assert devhost.out(f"ls {seen}/run/nexus {seen}/var/lib/nexus | grep -v :").split() == [
            "vms",
            "vms",
        ]
    finally:
        devhost.run("rmdir /run/nexus/vms/aaaaaaaaaaaaa")
