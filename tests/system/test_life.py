"""How VMs end, with real guests: in order when asked to, by themselves when nobody uses them."""

_UNTIL_TERMINATED = "trap 'echo bye >/root/bye; exit' TERM; echo on; while :; do sleep 0.1; done"


def _vm(devhost, name):
    return devhost.json("vm", "inspect", name)


def test_a_stop_asks_the_agent_and_what_runs_in_the_guest_ends_in_order(devhost, make_vm):
    name = make_vm("leaving", "--no-network")
    started = devhost.exec(
        name, "sh", "-c", f'setsid sh -c "{_UNTIL_TERMINATED}" </dev/null >/run/on 2>&1 &'
    )
    assert started.returncode == 0
    devhost.until(
        "it runs", lambda: b"on" in devhost.exec(name, "cat", "/run/on", check=False).stdout
    )

    devhost.nexusctl("vm", "stop", name, "--grace", "120", timeout=180)

    vm = _vm(devhost, name)
    assert vm["state"] == "stopped"
    assert "its agent shut it down" in vm["state_reason"]
    assert vm["last_exit"]["cause"] == "stop"
    devhost.nexusctl("vm", "start", name, timeout=180)
    assert devhost.exec(name, "cat", "/root/bye").stdout == b"bye\n"


def test_a_command_keeps_a_vm_and_idleness_ends_it(devhost, make_vm):
    name = make_vm("idler", "--no-network", "--ttl", "idle=15s")
    assert devhost.exec(name, "sleep", "25", timeout=120).returncode == 0
    assert _vm(devhost, name)["state"] == "ready"

    devhost.until("it has ended", lambda: _vm(devhost, name)["state"] == "stopped", seconds=120)
    assert "as it was not used for 15 s" in _vm(devhost, name)["state_reason"]
    assert _vm(devhost, name)["expire_time"] is None
