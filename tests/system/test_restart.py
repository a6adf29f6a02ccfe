"""Restart policies with real VMs: a killed one comes back by itself, a stopped one does not."""


def _vm(devhost, name):
    return devhost.json("vm", "inspect", name)


def _back(devhost, before):
    """Wait until the VM is ready in another boot than `before`, and return it."""

    def is_back():
        vm = _vm(devhost, before["name"])
        return vm["state"] == "ready" and vm["boot"] != before["boot"]

    devhost.until(f"{before['name']} is back", is_back)
    return _vm(devhost, before["name"])


def test_a_killed_firecracker_comes_back_at_the_same_address_and_the_history_says_why(
    devhost, make_vm
):
    name = make_vm("phoenix", "--restart", "always")
    before = _vm(devhost, name)

    devhost.run(f"kill -9 {before['pid']}")

    after = _back(devhost, before)
    assert after["spec"] == before["spec"]
    assert (after["restarts"], after["next_start_time"]) == (1, None)
    assert devhost.exec(name, "hostname").stdout.decode().strip() == name
    reasons = [step["reason"] for step in after["history"]]
    killed = next(reason for reason in reasons if "SIGKILL" in reason)
    assert killed.endswith("to be started again in 1 s")
    assert reasons[reasons.index(killed) + 1] == "started again by its policy, always"


def test_a_vm_that_is_killed_while_vmm_is_away_comes_back_with_it(devhost, make_vm):
    name = make_vm("twice", "--restart", "on-failure:immediate")
    before = _vm(devhost, name)
    devhost.run(f"systemctl stop nexus-vmm; kill -9 {before['pid']}")
    devhost.until(
        "its unit has failed",
        lambda: "failed" in devhost.out(f"systemctl show -P ActiveState nexus-vm@{before['id']}"),
    )
    devhost.run("systemctl start nexus-vmm")
    assert _back(devhost, before)["restarts"] == 1


def test_a_guest_that_shuts_down_while_vmm_is_away_stays_down(devhost, make_vm):
    name = make_vm("leaver", "--no-network", "--restart", "on-failure:immediate")
    vm = _vm(devhost, name)
    state = f"systemctl show -P SubState nexus-vm@{vm['id']}"
    devhost.run("systemctl stop nexus-vmm")
    # The gateway, which serves commands, works without vmm.
    devhost.exec(name, "sh", "-c", "(sleep 1; echo b >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    devhost.until("its guest has ended", lambda: devhost.out(state) == "exited")
    devhost.run("systemctl start nexus-vmm")
    devhost.until("it is known", lambda: _vm(devhost, name)["state"] == "crashed")
    vm = _vm(devhost, name)
    assert (vm["last_exit"]["cause"], vm["last_exit"]["exit_code"]) == ("shutdown", 0)
    assert (vm["restarts"], vm["next_start_time"]) == (0, None)
    assert devhost.out(state) == "dead"


def test_a_deliberate_stop_stays_and_cancels_what_is_pending(devhost, make_vm):
    name = make_vm("still", "--restart", "always:immediate")
    devhost.nexusctl("vm", "stop", name)
    assert (_vm(devhost, name)["state"], _vm(devhost, name)["next_start_time"]) == ("stopped", None)

    devhost.nexusctl("vm", "update", name, "--restart", "always:fixed=3600s")
    devhost.nexusctl("vm", "start", name, timeout=180)
    devhost.run(f"kill -9 {_vm(devhost, name)['pid']}")
    devhost.until("a start is pending", lambda: _vm(devhost, name)["next_start_time"])
    devhost.nexusctl("vm", "stop", name)
    devhost.run("systemctl restart nexus-vmm")
    devhost.until("vmm serves", lambda: devhost.nexusctl("status", check=False).returncode == 0)
    vm = _vm(devhost, name)
    assert (vm["state"], vm["next_start_time"], vm["restarts"]) == ("stopped", None, 0)
    assert devhost.out(f"systemctl show -P ActiveState nexus-vm@{vm['id']}").strip() == "inactive"


def test_a_paused_vm_stands_still_and_goes_on_where_it_was(devhost, make_vm):
    name = make_vm("sleeper")
    before = _vm(devhost, name)
    counting = devhost.start_exec(name, "sh", "-c", "for n in 1 2 3; do sleep 1; echo $n; done")
    assert counting.stdout.readline() == b"1\n"

    devhost.nexusctl("vm", "pause", name)
    # Longer than the gateway waits for a guest that falls silent.
    devhost.run("systemctl restart nexus-vmm; sleep 20", timeout=60)
    devhost.until("vmm serves", lambda: devhost.nexusctl("status", check=False).returncode == 0)
    assert _vm(devhost, name)["state"] == "paused"
    assert devhost.exec(name, "true", check=False).returncode == 125

    devhost.nexusctl("vm", "resume", name)
    devhost.until("it is ready", lambda: _vm(devhost, name)["state"] == "ready")
    out, _ = counting.communicate(timeout=60)
    assert (out, counting.returncode) == (b"2\n3\n", 0)
    after = _vm(devhost, name)
    assert (after["boot"], after["pid"]) == (before["boot"], before["pid"])
    assert [step["to"] for step in after["history"]].count("unreachable") == 0

    devhost.nexusctl("vm", "pause", name)
    devhost.nexusctl("vm", "stop", name)
    assert _vm(devhost, name)["state"] == "stopped"
