"""What the services may do, read from /proc; and that none of them ever forks."""

import json
import re
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


def test_a_vm_process_sees_nothing_but_its_own(devhost, hello):
    vm = devhost.json("vm", "inspect", hello)
    assert set(devhost.out(f"ls /proc/{vm['pid']}/root").split()) == {
        *("api", "dev", "disk", "firecracker", "firecracker.pid", "guest", "run", "vsock")
    }


def _reaches(devhost, user, path):
    """Whether a user can read a file or connect to a socket."""
    connect = f'import socket; socket.socket(socket.AF_UNIX).connect("{path}")'
    read = f'import os; os.close(os.open("{path}", os.O_RDONLY))'
    as_user = f"setpriv --reuid {user} --regid {user} --init-groups python3 -IS -c"
    code = connect if path.endswith(".sock") else read
    return devhost.run(f"{as_user} '{code}'", check=False).returncode == 0


DISK, API, AGENT = (
    "/var/lib/nexus/vms/{}/overlay.img",
    "/run/nexus/vms/{}/api/api.sock",
    "/run/nexus/vms/{}/vsock/agent.sock",
)
VMM, NETD, DNS, GATEWAY = (
    f"/run/nexus/{name}/{name}.sock" for name in ("vmm", "netd", "dns", "gateway")
)
SECRETS = (
    *("/etc/shadow", "/etc/nexus/mcp-token", "/etc/nexus/tls/server.key"),
    *("/var/lib/nexus/vmm/vmm.db", "/var/lib/nexus/netd/netd.db"),
)
EVERYTHING = (DISK, API, AGENT, VMM, NETD, DNS, GATEWAY, *SECRETS)
OWN = {
    "nexus-vmm": {DISK, API, VMM, "/var/lib/nexus/vmm/vmm.db"},
    "nexus-netd": {VMM, NETD, DNS, "/var/lib/nexus/netd/netd.db"},
    "nexus-gateway": {VMM, AGENT, GATEWAY},
    "nexus-dns": {DNS},
    "nexus-console": set(),
    "nobody": set(),
}
"""What each user reaches of all that; for a socket, that it may connect."""


@pytest.mark.parametrize("user", OWN)
def test_a_service_reaches_what_it_needs_and_nothing_else(devhost, hello, user):
    vm = devhost.json("vm", "inspect", hello)
    reached = {place for place in EVERYTHING if _reaches(devhost, user, place.format(vm["id"]))}
    assert reached == OWN[user]


EXPOSURE = re.compile(r"^\| `(nexus-[a-z@]+)` \| ([0-9.]+) \|", re.MULTILINE)


def test_the_exposure_of_each_unit_is_what_the_manual_says(devhost, hello):
    vm = devhost.json("vm", "inspect", hello)
    said = dict(EXPOSURE.findall((ROOT / "docs/security.md").read_text()))
    units = ("nexus-vmm", "nexus-gateway", "nexus-netd", "nexus-dns", "nexus-drain", "nexus-vm@")
    found = {}
    for unit in units:
        name = unit + vm["id"] if unit.endswith("@") else unit
        report = devhost.out(f"systemd-analyze security --no-pager {name}.service")
        found[unit] = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)[1]
    assert found == said
    assert max(float(found[unit]) for unit in ("nexus-vmm", "nexus-gateway")) <= 1.5
    assert float(found["nexus-netd"]) <= 2.0
