"""kill -9 of each service while a guest works: the VM lives, the service is back, all is known."""

import pytest

FIRECRACKERS = "pgrep --exact --count firecracker; pgrep --exact firecracker | sort"


def _listed(devhost):
    return {vm["name"]: vm["state"] for vm in devhost.json("vm", "list")["vms"]}


@pytest.mark.parametrize("service", ["vmm", "netd", "dns", "gateway"])
def test_a_killed_service_comes_back_and_the_vm_lives(devhost, hello, main_pid, service):
    vm = devhost.json("vm", "inspect", hello)
    firecrackers = devhost.out(FIRECRACKERS)
    boot_id = devhost.exec(hello, "cat", "/proc/sys/kernel/random/boot_id").stdout
    go_on = f"/run/after-{service}"
    script = f"echo begun; until [ -e {go_on} ]; do sleep 0.2; done; echo done"
    command = devhost.start_exec(hello, "sh", "-c", script)
    assert command.stdout.readline() == b"begun\n"

    pid = main_pid(service)
    devhost.run(f"kill -9 {pid}")
    devhost.until(f"{service} is back", lambda: main_pid(service) not in (0, pid))
    devhost.until(
        f"{service} serves",
        lambda: devhost.nexusctl("status", check=False).returncode == 0,
    )

    devhost.until("hello is ready", lambda: _listed(devhost).get(hello) == "ready")
    devhost.exec(hello, "touch", go_on)
    out, _ = command.communicate(timeout=60)
    if service == "gateway":
        # It carried the stream: the client is told, and no half answer passes for a whole one.
        assert command.returncode == 125
    else:
        assert (out, command.returncode) == (b"done\n", 0)

    assert devhost.exec(hello, "cat", "/proc/sys/kernel/random/boot_id").stdout == boot_id
    assert devhost.out(FIRECRACKERS) == firecrackers
    after = devhost.json("vm", "inspect", hello)
    assert (after["pid"], after["boot"]) == (vm["pid"], vm["boot"])


def test_a_killed_firecracker_is_a_crash_and_starts_again_at_the_same_address(devhost, make_vm):
    name = make_vm("victim")
    before = devhost.json("vm", "inspect", name)

    devhost.run(f"kill -9 {before['pid']}")
    devhost.until("the crash is noticed", lambda: _listed(devhost)[name] == "crashed")
    devhost.nexusctl("vm", "start", name, timeout=180)

    after = devhost.json("vm", "inspect", name)
    assert after["spec"]["network"] == before["spec"]["network"]
    assert after["boot"] != before["boot"]
    assert devhost.exec(name, "hostname").stdout.decode().strip() == name


def test_a_vm_that_ends_while_vmm_is_away_is_known_as_crashed(devhost, make_vm, main_pid):
    name = make_vm("orphan")
    vm = devhost.json("vm", "inspect", name)
    devhost.run(f"systemctl stop nexus-vmm; kill -9 {vm['pid']}")
    devhost.until(
        "its unit has failed",
        lambda: "failed" in devhost.out(f"systemctl show -P ActiveState nexus-vm@{vm['id']}"),
    )
    devhost.run("systemctl start nexus-vmm")
    devhost.until("vm list is right", lambda: _listed(devhost)[name] == "crashed")


def test_delete_leaves_nothing(devhost, hello, snapshot):
    before = snapshot()
    devhost.nexusctl("vm", "create", "fleeting")
    devhost.nexusctl("vm", "start", "fleeting", timeout=180)
    assert snapshot() != before
    devhost.nexusctl("vm", "stop", "fleeting")
    devhost.nexusctl("vm", "delete", "fleeting", "--yes")

    assert snapshot() == before
    assert devhost.nexusctl("vm", "inspect", "fleeting", check=False).returncode == 4
