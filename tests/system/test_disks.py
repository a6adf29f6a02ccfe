"""Disks of real VMs that grow."""

MIB = 1024 * 1024


def size(devhost, name):
    """Return the size of the guest's root in MiB, as it sees it: without the tables of inodes."""
    return int(devhost.exec(name, "stat", "-f", "-c", "%b", "/").stdout) * 4096 // MIB


def test_a_disk_grows_with_the_next_start_and_keeps_what_is_on_it(devhost, hello, make_vm):
    name = make_vm("grower", "--no-network", "--disk", "256")
    devhost.exec(name, "sh", "-c", "echo worked for >/root/kept; sync")
    before = size(devhost, name)
    assert 200 <= before <= 256
    larger = ("vm", "update", name, "--disk", "512")
    done = devhost.nexusctl(*larger, check=False)
    assert (done.returncode, b"while it does not run" in done.stderr) == (5, True)

    devhost.nexusctl("vm", "stop", name)
    devhost.nexusctl(*larger)
    done = devhost.nexusctl("vm", "update", name, "--disk", "256", check=False)
    assert (done.returncode, b"a disk only grows" in done.stderr) == (5, True)
    devhost.nexusctl("vm", "start", name, timeout=180)
    assert before + 224 <= size(devhost, name) <= 512
    assert devhost.exec(name, "cat", "/root/kept").stdout == b"worked for\n"
    vm = devhost.json("vm", "inspect", name)
    disk = f"/var/lib/nexus/vms/{vm['id']}/overlay.img"
    assert devhost.out(f"stat -c %s {disk}") == str(512 * MIB)
