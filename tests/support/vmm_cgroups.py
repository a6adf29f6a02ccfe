"""Stand-ins for what the kernel counts of VMs: cgroups, TAPs and disks as files."""

from nexus_vmm.reports.usage import Meter

CPU = "usage_usec 2500000\nuser_usec 2000000\nnr_periods 0\nthrottled_usec 0\n"
IO = (
    "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"
    "254:0 rbytes=8192 wbytes=4096 rios=1 wios=1 dbytes=0 dios=0\n"
    "7:0 \n"
)
FILES = {
    "cpu.stat": CPU,
    "memory.current": "104857600\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n",
    "io.stat": IO,
    "vm/memory.max": "201326592\n",
    "vm/cpu.stat": "usage_usec 2400000\nnr_periods 7\nthrottled_usec 250\n",
}
USAGE = {
    ("cpu_seconds", ""): 2.5,
    ("cpu_throttled_seconds", ""): 0.00025,
    ("memory_bytes", ""): 104857600,
    ("memory_limit_bytes", ""): 201326592,
    ("oom_kills", ""): 2,
    ("disk_bytes", ""): 8192,
    ("io_bytes", "read"): 8192,
    ("io_bytes", "write"): 8192,
    ("network_bytes", "egress"): 1500,
    ("network_bytes", "ingress"): 90000,
}
"""What FILES come to, with a TAP and a disk of two pages."""


class Kernel:
    """The files that a meter reads."""

    def __init__(self, directory, places):
        self.places = places
        self.meter = Meter(places, directory / "cgroup", directory / "net")

    def unit(self, vm_id):
        return self.meter.cgroups / f"nexus-vm@{vm_id}.service"

    def add(self, vm):
        """Let there be the cgroup, the TAP and the disk of a VM."""
        for name, text in FILES.items():
            path = self.unit(vm.id) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        statistics = self.meter.devices / vm.spec.network.tap / "statistics"
        statistics.mkdir(parents=True)
        (statistics / "rx_bytes").write_text("1500\n")
        (statistics / "tx_bytes").write_text("90000\n")
        self.places.home(vm.id).mkdir()
        self.places.disk(vm.id).write_bytes(bytes(8192))
