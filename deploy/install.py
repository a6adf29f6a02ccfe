"""Puts Nexus on a machine with systemd: what `make install` runs.

With --destdir everything goes below that folder, to become the root of another machine. Without,
it goes onto this one: users, folders and units are activated too. It may be run again, and
upgrades what is there; VMs keep running.
"""

from __future__ import annotations

import argparse
import os
import py_compile
import secrets
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy.command import Failure, run
from deploy.venvs import ENVIRONMENTS, HOME, Tools

REPO = Path(__file__).resolve().parents[1]

SERVICES = ("nexus-vmm", "nexus-netd", "nexus-gateway", "nexus-dns")

BESIDE = ("nexus-drain.service", "run-nexus-vms.mount")
"""Enabled with the services. An upgrade leaves them alone: their stop would be that of all VMs."""

# What goes where: source below the repository (a pattern), folder on the machine, mode.
FILES = (
    ("deploy/systemd/*.service", "usr/lib/systemd/system", 0o644),
    ("deploy/systemd/*.slice", "usr/lib/systemd/system", 0o644),
    ("deploy/systemd/*.mount", "usr/lib/systemd/system", 0o644),
    ("deploy/systemd/*.conf", HOME, 0o644),
    ("deploy/sysusers.d/*", "usr/lib/sysusers.d", 0o644),
    ("deploy/tmpfiles.d/*", "usr/lib/tmpfiles.d", 0o644),
    ("deploy/sysctl.d/*", "usr/lib/sysctl.d", 0o644),
    ("deploy/modules-load.d/*", "usr/lib/modules-load.d", 0o644),
    ("deploy/polkit/*", "usr/share/polkit-1/rules.d", 0o644),
    ("deploy/bin/*", f"{HOME}/bin", 0o755),
    ("deploy/launch/nexus_launch/*.py", f"{HOME}/launch/nexus_launch", 0o644),
    ("docs/architecture.md", "usr/share/doc/nexus", 0o644),
    ("docs/security.md", "usr/share/doc/nexus", 0o644),
    ("docs/recovery.md", "usr/share/doc/nexus", 0o644),
)

# Debian packages that a host needs, by a file of each.
_REQUIRED = {
    "/usr/bin/rotatelogs": "apache2-utils",
    "/usr/lib/polkit-1/polkitd": "polkitd",
    "/usr/bin/dbus-daemon": "dbus",
}


def install_files(root: Path) -> None:
    """Copy the files of the table below `root`."""
    for pattern, folder, mode in FILES:
        for source in sorted(REPO.glob(pattern)):
            _copy(source, root / folder / source.name, mode)
    for module in (root / HOME / "launch/nexus_launch").glob("*.py"):
        py_compile.compile(str(module), doraise=True)  # for a quick start of VMs
    jail = root / HOME / "jail"
    jail.mkdir(exist_ok=True)
    jail.chmod(0o711)


def install_environments(root: Path, cache: Path) -> None:
    """Make the environments below `root`, and put `nexusctl` on the path."""
    tools = Tools(REPO, cache)
    wheels = tools.build_wheels(cache / "wheels")
    (root / HOME).mkdir(parents=True, exist_ok=True)
    for environment in ENVIRONMENTS:
        tools.install(environment, root, wheels)
    command = root / "usr/bin/nexusctl"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.unlink(missing_ok=True)
    command.symlink_to(f"/{HOME}/cli/bin/nexusctl")


def install_guest(root: Path, guest: Path) -> None:
    """Copy Firecracker, and what guests boot from, below `root`."""
    for source in sorted((guest / "bin").iterdir()):
        _copy(source, root / HOME / "bin" / source.name, 0o755)
    artifacts = [*guest.glob("kernels/*/*"), *guest.glob("images/*.img"), guest / "runtime.img"]
    for source in artifacts:
        _copy(source, root / HOME / "guest" / source.relative_to(guest), 0o644)


def make_token(root: Path) -> None:
    """Make the MCP endpoint's bearer token, unless there is one."""
    path = root / "etc/nexus/mcp-token"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def check_machine() -> None:
    """Raise Failure if this machine lacks a program that units of Nexus need."""
    missing = [package for path, package in _REQUIRED.items() if not Path(path).exists()]
    if missing:
        raise Failure(f"this machine lacks: {' '.join(missing)}; apt-get install them first")


def activate() -> None:
    """Make users and folders, load what the kernel needs, and tell systemd of the units."""
    run(["systemd-sysusers", "nexus.conf"])
    run(["systemd-tmpfiles", "--create", "nexus.conf"])
    run(["systemctl", "restart", "systemd-modules-load.service"])
    run(["sysctl", "--quiet", "--load", "/usr/lib/sysctl.d/50-nexus.conf"])
    run(["systemctl", "daemon-reload"])
    run(["systemctl", "try-restart", *SERVICES])


def _copy(source: Path, target: Path, mode: int) -> None:
    """Copy a file in one step: a program that is running keeps the old one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    fresh.chmod(mode)
    fresh.rename(target)


def main() -> int:
    """Install. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Put Nexus on a machine with systemd.")
    parser.add_argument(
        "--destdir", type=Path, help="folder to install below; default: this machine"
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder that `make venv` filled")
    parser.add_argument("--guest", type=Path, required=True, help="guest artifacts, as built")
    args = parser.parse_args()
    root = args.destdir.absolute() if args.destdir else Path("/")
    os.umask(0o022)
    try:
        if args.destdir is None:
            check_machine()
        install_files(root)
        install_guest(root, args.guest)
        install_environments(root, args.cache.absolute())
        make_token(root)
        if args.destdir is None:
            activate()
            print(
                f"Installed. Enable with: systemctl enable --now {' '.join((*SERVICES, *BESIDE))}"
            )
    except (Failure, OSError) as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
