"""Mistakes against the real thing: a clear error, the right exit code, and nothing changed."""

import pytest

CASES = {
    "unknown VM": (["vm", "start", "nobody"], 4, "nobody"),
    "unknown VM to exec in": (["vm", "exec", "nobody", "--", "true"], 125, "nobody"),
    "duplicate name": (["vm", "create", "hello"], 5, "hello"),
    "bad name": (["vm", "create", "No_Good"], 1, "No_Good"),
    "no vCPU": (["vm", "create", "bad", "--cpus", "0"], 1, "1 to 32"),
    "absurd vCPUs": (["vm", "create", "bad", "--cpus", "1000"], 1, "vcpu_count"),
    "absurd memory": (["vm", "create", "bad", "--memory", "99999999"], 1, "memory_mib"),
    "missing image": (["vm", "create", "bad", "--image", "nothere"], 4, "nothere"),
    "missing kernel": (["vm", "create", "bad", "--kernel", "nothere"], 4, "nothere"),
    "image outside": (["vm", "create", "bad", "--image", "../../etc/passwd"], 1, "image"),
    "start of a running VM": (["vm", "start", "hello"], 5, "hello"),
    "delete of a running VM": (["vm", "delete", "hello", "--yes"], 5, "stop"),
    "read of no file": (["vm", "cp", "hello:/nothing/here", "/tmp/x"], 4, "/nothing/here"),
    "no such command": (["vm", "exec", "hello", "--", "no-such-command"], 127, "no-such-command"),
}


@pytest.fixture(scope="module")
def held():
    """What there was after the mistake before, alone: looking takes longer than the mistake."""
    return []


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_changes_nothing(devhost, hello, snapshot, held, case):
    arguments, code, says = CASES[case]
    before = held.pop() if held else (snapshot(), devhost.json("vm", "list")["vms"])

    done = devhost.nexusctl(*arguments, check=False)

    assert done.returncode == code, done.stderr
    assert says in done.stderr.decode()
    after = (snapshot(), devhost.json("vm", "list")["vms"])
    assert after == before
    held.append(after)


def test_stop_of_a_stopped_vm(devhost, make_vm):
    name = make_vm("resting")
    devhost.nexusctl("vm", "stop", name)
    done = devhost.nexusctl("vm", "stop", name, check=False)
    assert done.returncode == 5
    assert devhost.json("vm", "inspect", name)["state"] == "stopped"


def test_a_kernel_that_is_no_kernel(devhost, snapshot):
    kernels = "/usr/lib/nexus/guest/kernels"
    devhost.run(
        f"mkdir -p {kernels}/broken && echo this is no kernel > {kernels}/broken/vmlinux"
        f" && cp {kernels}/default/initrd {kernels}/broken/initrd"
    )
    try:
        devhost.nexusctl("vm", "create", "unbootable", "--kernel", "broken")
        before = snapshot()
        done = devhost.nexusctl("vm", "start", "unbootable", check=False)
        vm = devhost.json("vm", "inspect", "unbootable")

        assert done.returncode == 5
        assert "kernel" in done.stderr.decode().lower()
        assert vm["state"] == "failed"
        assert "kernel" in vm["state_reason"].lower()
        assert snapshot() == before
    finally:
        devhost.nexusctl("vm", "delete", "unbootable", "--force", "--yes", check=False)
        devhost.run(f"rm -r {kernels}/broken")
