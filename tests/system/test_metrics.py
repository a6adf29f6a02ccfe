"""Health and metrics of vmm on a real host: what its unit lets it see of real VMs."""

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

SCRAPE = "curl --silent --fail --unix-socket /run/nexus/vmm/metrics.sock http://localhost/metrics"

# The kernel learns by some ten flushes whose the disk is (docs/metrics.md).
WRITE = "for i in $(seq 20); do head -c 8M /dev/urandom > /root/random; sync; done; rm /root/random"


def scrape(devhost, vm_id):
    """Return the figures of a VM by name and direction."""
    found = {}
    for family in text_string_to_metric_families(devhost.out(SCRAPE)):
        for sample in family.samples:
            if sample.labels.get("vm_id") == vm_id:
                name = sample.name.removeprefix("nexus_vmm_vm_")
                found[name, sample.labels.get("direction", "")] = sample.value
    return found


def test_what_a_vm_uses_is_counted(devhost, hello, outside):
    vm = devhost.json("vm", "inspect", hello)
    before = scrape(devhost, vm["id"])
    assert before["memory_limit_bytes", ""] > vm["spec"]["memory_mib"] << 20
    assert 8 << 20 < before["memory_bytes", ""] < before["memory_limit_bytes", ""] + (64 << 20)
    assert before["oom_kills_total", ""] == 0
    devhost.exec(hello, "ping", "-c", "2", "-s", "1000", outside)
    devhost.exec(hello, "sh", "-c", WRITE)
    devhost.until("what it wrote is counted", lambda: written(devhost, vm, before), 20)
    after = scrape(devhost, vm["id"])
    assert after["cpu_seconds_total", ""] > before["cpu_seconds_total", ""]
    for direction in ("egress", "ingress"):
        key = "network_bytes_total", direction
        assert after[key] >= before[key] + 2_000
    path = f"/var/lib/nexus/vms/{vm['id']}/overlay.img"
    devhost.until(
        "the disk's figure is that of its file",
        lambda: (
            scrape(devhost, vm["id"])["disk_bytes", ""]
            == int(devhost.out(f"stat --format=%b {path}")) * 512
        ),
        20,
    )


def written(devhost, vm, before):
    key = "io_bytes_total", "write"
    return scrape(devhost, vm["id"]).get(key, 0) >= before.get(key, 0) + (4 << 20)


def test_all_subsystems_are_well(devhost):
    assert devhost.nexusctl("status").returncode == 0
    told = devhost.json("status")["subsystems"]
    assert {name: one["ok"] for name, one in told.items()} == dict.fromkeys(
        ("store", "disk", "kvm", "systemd", "images"), True
    )
    assert re.fullmatch(r"systemd \d+.* answers", told["systemd"]["detail"])


@pytest.fixture
def without_runtime(devhost):
    """Take the runtime drive away for as long as the test."""
    path = "/usr/lib/nexus/guest/runtime.img"
    devhost.run(f"mv {path} {path}.away")
    yield path
    devhost.run(f"mv {path}.away {path}")


def test_what_is_missing_is_told_and_the_rest_works(devhost, hello, without_runtime):
    told = devhost.until("the missing runtime is told", lambda: ill(devhost, "images"), 20)
    assert f"{without_runtime} is missing" in told["detail"]
    assert devhost.nexusctl("status", check=False).returncode == 1
    assert devhost.exec(hello, "true").returncode == 0


def ill(devhost, name):
    """Return what is told of a subsystem that does not work, or None."""
    done = devhost.nexusctl("status", "--json", check=False)
    one = json.loads(done.stdout)["subsystems"][name]
    return None if one["ok"] else one
