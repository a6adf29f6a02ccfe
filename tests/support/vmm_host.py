"""A host with as much room as a test gives it."""

from dataclasses import dataclass


@dataclass
class FakeHost:
    """Implements `nexus_vmm.limits.host.Host`."""

    memory: int = 1 << 20
    cpus: int = 1 << 10
    disk: int = 1 << 30

    def memory_mib(self):
        return self.memory

    def vcpus(self):
        return self.cpus

    def disk_mib(self):
        return self.disk
