"""What installation puts where."""

import stat

import pytest

from deploy import install
from deploy.devhost.tree import with_numbers


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_files_come_with_their_modes(tmp_path):
    install.install_files(tmp_path)
    units = tmp_path / "usr/lib/systemd/system"
    assert {path.name for path in units.iterdir()} == {
        "nexus-vmm.service",
        "nexus-netd.service",
        "nexus-gateway.service",
        "nexus-dns.service",
        "nexus-drain.service",
        "run-nexus-vms.mount",
        "nexus-vm@.service",
        "nexus-vms.slice",
    }
    assert mode(units / "nexus-vmm.service") == 0o644
    assert mode(tmp_path / "usr/lib/nexus/bin/nexus-vm-launch") == 0o755
    package = tmp_path / "usr/lib/nexus/launch/nexus_launch"
    assert (package / "launch.py").is_file()
    assert any((package / "__pycache__").glob("launch.*.pyc"))
    assert list((tmp_path / "usr/lib/nexus/jail").iterdir()) == []
    for _, folder, _ in install.FILES:
        assert any((tmp_path / folder).iterdir())


def test_guest_artifacts(tmp_path):
    guest, root = tmp_path / "guest", tmp_path / "root"
    for name in (
        *("bin/firecracker", "bin/jailer", "runtime.img", "images/debian.img"),
        *("kernels/default/vmlinux", "kernels/default/initrd", "host/vmlinuz"),
    ):
        (guest / name).parent.mkdir(parents=True, exist_ok=True)
        (guest / name).write_text(name)
    install.install_guest(root, guest)
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert found == {
        "usr/lib/nexus/bin/firecracker",
        "usr/lib/nexus/bin/jailer",
        "usr/lib/nexus/guest/runtime.img",
        "usr/lib/nexus/guest/images/debian.img",
        "usr/lib/nexus/guest/kernels/default/vmlinux",
        "usr/lib/nexus/guest/kernels/default/initrd",
    }
    assert mode(root / "usr/lib/nexus/bin/firecracker") == 0o755


def test_the_token_is_secret_and_is_kept(tmp_path):
    install.make_token(tmp_path)
    path = tmp_path / "etc/nexus/mcp-token"
    token = path.read_text()
    assert len(token.strip()) >= 32
    assert mode(path) == 0o600
    install.make_token(tmp_path)
    assert path.read_text() == token


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('u nexus-vm - "VMs"', 'u nexus-vm 700 "VMs"'),
        ("g kvm -\ng nexus-vsock -", "g kvm 700\ng nexus-vsock 701"),
        ("m nexus-vm kvm", "m nexus-vm kvm"),
    ],
)
def test_users_get_fixed_numbers(before, after):
    assert with_numbers(before, 700) == after + "\n"
