"""The port to the host's room: the same cases against the fake and the kernel."""

import os
from pathlib import Path

import pytest
import vmm_host

from nexus_vmm.limits.host import LinuxHost


def fake(_):
    return vmm_host.FakeHost()


def this_host(directory):
    return LinuxHost(directory)


@pytest.fixture(params=[fake, this_host])
def host(request, tmp_path):
    return request.param(tmp_path)


def test_there_is_room_for_a_vm(host):
    assert host.memory_mib() >= 128
    assert host.vcpus() >= 1
    assert host.disk_mib() >= 16


def test_what_is_measured_is_this_host(tmp_path):
    host = LinuxHost(tmp_path)
    total = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    assert abs(host.memory_mib() - total) <= 1
    assert host.vcpus() == os.cpu_count()
    found = os.statvfs(tmp_path)
    assert 0 < host.disk_mib() <= found.f_blocks * found.f_frsize // 2**20


def test_a_disk_that_cannot_be_measured(tmp_path):
    with pytest.raises(FileNotFoundError):
        LinuxHost(tmp_path / "none").disk_mib()
