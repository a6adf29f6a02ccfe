"""The guest image `debian`: a small Debian with what an agent works with, and no init."""

from __future__ import annotations

import shlex
from pathlib import Path

from deploy.command import run
from deploy.guest import packages

SUITE = "bookworm"

PACKAGES = (
    *("python3", "git", "curl", "ca-certificates"),
    *("iproute2", "iputils-ping", "procps", "less"),
)

_OPTIONS = (
    *("--variant=minbase", "--format=null", "--quiet"),
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/info/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)

PACK = Path(__file__).with_name("pack")

# Runs with the root as $1 where its files have their owners, be it as root or in a user
# namespace. /proc and others are mounted there; a bind mount shows what is beneath.
_HOOK = """
set -e
rm -rf "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*
rm -f "$1"/var/cache/apt/archives/*.deb "$1"/var/log/*.log "$1"/var/log/apt/*
mkdir {scratch}
mount --bind "$1" {scratch}
{pack} {scratch} {image} debian
umount {scratch}
rmdir {scratch}
"""


def key() -> tuple[str, ...]:
    """Return what the image depends on. New versions of its packages alone do not rebuild it."""
    return (SUITE, *PACKAGES, *_OPTIONS, _HOOK)


def build(target: Path) -> None:
    """Make `debian.img` in `target`, an ext4 to be mounted read-only."""
    image = target / "debian.img"
    hook = _HOOK.format(
        scratch=shlex.quote(str(target / "root")),
        image=shlex.quote(str(image)),
        pack=shlex.quote(str(PACK)),
    )
    run(
        [
            *("mmdebstrap", *_OPTIONS, f"--include={','.join(PACKAGES)}"),
            *(f"--customize-hook={hook}", SUITE, "/dev/null", *packages.sources()),
        ]
    )
