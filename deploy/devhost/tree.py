"""The dev host's root tree: base system, kernel modules, `make install`, and its own settings."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from deploy.command import run
from deploy.devhost.layout import ADDRESS, GRPC_PORTS, REPO, SERVICES
from deploy.install import BESIDE

if TYPE_CHECKING:
    from pathlib import Path

_MASKED = (
    "serial-getty@ttyS0.service",  # its hangup kills who writes to that tty
    "getty@tty1.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-pstore.service",
    "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-random-seed.service",  # QEMU gives random numbers
    "systemd-remount-fs.service",  # the initramfs mounts
    "systemd-tmpfiles-clean.timer",
    "systemd-sysusers.service",  # done at the build
    "sys-kernel-config.mount",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@loop.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
)

# Settings of the machine itself, by path.
_FILES = {
    "etc/hostname": "devhost\n",
    "etc/hosts": f"127.0.0.1 localhost\n{ADDRESS} devhost\n",
    "etc/machine-id": "6e65787573646576686f737400000001\n",  # fixed: the root is new at each boot
    "etc/fstab": "",
    "etc/ssh/sshd_config.d/nexus.conf": (
        "HostKey /etc/ssh/ssh_host_key\nPasswordAuthentication no\n"
        "UseDNS no\nUsePAM no\nMaxSessions 100\n"  # no PAM: no session to set up at each login
    ),
    "etc/systemd/journald.conf.d/nexus.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\n",
    # Only these: the rest costs seconds of emulation and brings nothing that is used here.
    "etc/systemd/system/systemd-udev-trigger.service.d/nexus.conf": (
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add"
        " --subsystem-match=misc --subsystem-match=input --subsystem-match=net\n"
    ),
    "etc/modules-load.d/power-button.conf": "button\nevdev\n",
    "etc/tmpfiles.d/sshd.conf": "d /run/sshd 0755 root root\n",
}

# The data disk outlives the root, so the numbers must not depend on what else is installed.
_FIRST_UID = 700


def make_tree(root: Path, base: Path, modules: Path, guest: Path, identity: Path) -> None:
    """Fill the folder `root`. Needs root, for the owners of the files of the tar file `base`."""
    run(["tar", "--extract", "--numeric-owner", "--file", base, "--directory", root])
    target = root / "usr/lib/modules" / modules.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(modules, target, symlinks=True)
    run(
        ["make", "--no-print-directory", "-C", REPO, "install", f"DESTDIR={root}", f"GUEST={guest}"]
    )
    for name, text in _FILES.items():
        _write(root / name, text)
    (root / "var/lib/nexus").mkdir()  # the data disk goes here
    for unit in _MASKED:
        _link(root / "etc/systemd/system" / unit, "/dev/null")
    _ssh(root, identity)
    _services(root, identity)


def _ssh(root: Path, identity: Path) -> None:
    for old in (root / "etc/ssh").glob("ssh_host_*"):
        old.unlink()
    _secret(identity / "ssh/host_key", root / "etc/ssh/ssh_host_key")
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    _secret(identity / "ssh/client_key.pub", root / "root/.ssh/authorized_keys")


def _services(root: Path, identity: Path) -> None:
    """Turn on the services, those that have a port with TCP."""
    for name in ("ca.pem", "server.pem", "server.key"):
        _secret(identity / "tls" / name, root / "etc/nexus/tls" / name)
    units = root / "etc/systemd/system"
    for unit in (*(f"{service}.service" for service in SERVICES), *BESIDE):
        _link(units / "multi-user.target.wants" / unit, f"/usr/lib/systemd/system/{unit}")
    for service, port in zip(SERVICES, GRPC_PORTS, strict=False):
        name = service.removeprefix("nexus-")
        _link(units / f"{service}.service.d/tls.conf", "/usr/lib/nexus/tls.conf")
        _write(root / f"etc/nexus/{name}.toml", f'[server.tls]\nlisten = "{ADDRESS}:{port}"\n')
    users = (root / "usr/lib/sysusers.d/nexus.conf").read_text(encoding="utf-8")
    _write(root / "etc/sysusers.d/nexus.conf", with_numbers(users, _FIRST_UID))
    run(["chroot", root, "systemd-sysusers"])


def with_numbers(sysusers: str, first: int) -> str:
    """Return a sysusers.d file with its users and groups numbered from `first` on."""
    lines = []
    for line in sysusers.splitlines():
        words = line.split(maxsplit=3)
        if words and words[0] in "ug" and words[2] == "-":
            words[2] = str(first)
            first += 1
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link to elsewhere
    path.write_text(text, encoding="utf-8")


def _secret(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
