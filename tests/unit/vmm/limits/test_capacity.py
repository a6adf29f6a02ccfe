"""Budgets: what settings and the host come to, and the refusal where too little is free."""

import pytest
import vmm_guest
from vmm_host import FakeHost

from nexus_rpc.errors import ResourceExhausted
from nexus_vmm.config.quotas import RESOURCES
from nexus_vmm.config.table import Config
from nexus_vmm.limits import capacity
from nexus_vmm.limits.capacity import Budget

HOST = FakeHost(memory=1000, cpus=4, disk=5000)


def limits(config, host=HOST):
    return {what: capacity.limit(what, config, host) for what in RESOURCES}


def test_the_hosts_own_by_default():
    assert limits(Config()) == {"memory_mib": 1000, "vcpus": 64, "disk_mib": 50_000, "vms": 4000}


def test_what_is_set_counts_and_the_host_is_not_measured():
    config = Config(
        capacity_memory_mib=2000,
        capacity_memory_overcommit=0.9,
        capacity_vcpus=2,
        capacity_vcpu_overcommit=1.5,
        capacity_disk_mib=100,
        capacity_disk_overcommit=2.0,
        capacity_vms=7,
    )
    assert limits(config, host=None) == {
        "memory_mib": 1800,
        "vcpus": 3,
        "disk_mib": 200,
        "vms": 7,
    }


def test_what_a_vm_asks_for():
    spec = vmm_guest.spec(vcpu_count=2, memory_mib=256, disk_mib=16)
    assert capacity.of_all(spec) == {"disk_mib": 16, "vms": 1}
    assert capacity.of_live(spec) == {"memory_mib": 256, "vcpus": 2}


def test_the_last_mebibyte_may_be_used():
    capacity.check("a", {"memory_mib": 128}, [Budget("memory_mib", "", 1000, 872)])


@pytest.mark.parametrize(
    ("budget", "reason", "metadata", "words"),
    [
        (
            Budget("memory_mib", "", 1000, 873),
            "NO_CAPACITY",
            {"what": "memory_mib", "asked": "128", "free": "127", "limit": "1000"},
            "needs 128 MiB of memory, and 127 of 1000 are free; stop VMs, or raise",
        ),
        (
            Budget("memory_mib", "team=blue", 100, 200),
            "QUOTA_EXCEEDED",
            {
                "what": "memory_mib",
                "asked": "128",
                "free": "0",
                "limit": "100",
                "tag": "team=blue",
            },
            "0 of 100 are free for VMs with team=blue; stop or delete some, or raise quota.tags",
        ),
    ],
)
def test_a_refusal_says_what_is_short_and_by_how_much(budget, reason, metadata, words):
    with pytest.raises(ResourceExhausted, match=words) as caught:
        capacity.check("a", {"memory_mib": 128}, [budget])
    assert (caught.value.reason, caught.value.metadata) == (reason, metadata)


@pytest.mark.parametrize("what", RESOURCES)
def test_each_resource_has_its_words(what):
    with pytest.raises(ResourceExhausted, match=r"; (stop|delete) VMs, or raise capacity\."):
        capacity.check("a", {what: 2}, [Budget(what, "", 1, 0)])
