"""The Debian packages that building and testing need; run as a program, it installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy.command import Failure, run

PACKAGES = (
    "apache2-utils",
    "binutils",
    "busybox-static",
    "containernetworking-plugins",
    "dbus-daemon",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "iptables",
    "kmod",
    "lz4",
    "mmdebstrap",
    "nftables",
    "openssh-client",
    "openssl",
    "python3-venv",
    "qemu-system-x86",
)
ELSEWHERE = ("npm",)
"""Packages whose program may also come from elsewhere, in whatever version."""


def install_packages() -> list[str]:
    """Install what is missing, as root; return what that was."""
    missing = _missing()
    if missing:
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "--quiet"], env=env)
        run(
            ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing], env=env
        )
    return missing


def _missing() -> list[str]:
    # It fails when it knows nothing of a package, but still tells of the others.
    known = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout.splitlines()
    packages = [package for package in PACKAGES if f"{package} installed" not in known]
    return packages + [name for name in ELSEWHERE if shutil.which(name) is None]


def main() -> int:
    """Install. Returns the exit code."""
    try:
        install_packages()
    except Failure as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
