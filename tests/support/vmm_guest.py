"""Guest files, places and VMs for vmm's tests."""

import os

import vmm_firecracker

from nexus_vmm.machine.assets import Assets
from nexus_vmm.places import Places
from nexus_vmm.states import Event, State
from nexus_vmm.vm import Goal, Network, Restarts, Spec, Vm

ID = "aaaaaaaaaaaaa"
NETWORK = Network("tap0", "02:fc:00:00:00:01", "172.16.0.2/12", "172.16.0.1", ("1.1.1.1",))

REPORTS = {
    State.RUNNING: [],
    State.ONLINE: [Event.HELLO],
    State.PROVISIONING: [Event.HELLO, Event.PROVISIONING],
    State.READY: [Event.HELLO, Event.PROVISIONING, Event.READY],
    State.UNREACHABLE: [Event.HELLO, Event.PROVISIONING, Event.READY, Event.LOST],
}
"""What a guest reports on its way to each live state."""


def guest_files(directory):
    """Make a guest directory with the image `debian` and the kernel `default`."""
    kernel = directory / "kernels/default"
    kernel.mkdir(parents=True)
    (kernel / "vmlinux").write_bytes(vmm_firecracker.ELF + b" and so on")
    (kernel / "initrd").write_bytes(b"")
    (directory / "images").mkdir()
    (directory / "images/debian.img").write_bytes(b"")
    (directory / "runtime.img").write_bytes(b"")
    return Assets(directory)


def places(directory):
    """Make the directories of VMs, whose processes are of the user that tests run as."""
    made = Places(directory / "vms", directory / "run", lambda vm_id: os.getuid())
    for path in (made.vms_dir, made.run_dir):
        path.mkdir()
    return made


def spec(**changes):
    """Return a spec with the defaults."""
    values = {
        "vcpu_count": 1,
        "memory_mib": 128,
        "image": "debian",
        "kernel": "default",
        "disk_mib": 16,
        "network": None,
        "balloon": False,
    }
    return Spec(**values | changes)


def vm(vm_id=ID, name="hello", **changes):
    """Return a VM that was created and nothing else."""
    values = {
        "seq": 1,
        "id": vm_id,
        "name": name,
        "spec": spec(),
        "state": State.CREATED,
        "reason": "",
        "created": 1,
        "changed": 1,
        "goal": Goal.STOP,
        "boot": "",
        "pid": 0,
        "cid": 3,
        "restarts": Restarts(),
        "revision": 1,
    }
    return Vm(**values | changes)
