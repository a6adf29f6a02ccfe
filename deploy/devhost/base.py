"""The base system: Debian with systemd, as a tar file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.command import run

if TYPE_CHECKING:
    from pathlib import Path

SUITE = "bookworm"

PACKAGES = (
    # what Nexus needs on any host: see the README
    "systemd",
    "systemd-sysv",
    "dbus",
    "polkitd",
    "kmod",
    "udev",
    "python3",
    "apache2-utils",  # rotatelogs, for the console
    # for people and for tests
    "openssh-server",
    "iproute2",
    "iputils-ping",
    "nftables",
    "procps",
    "less",
    "curl",
    "containernetworking-plugins",  # make bench compares netd with it
    "iptables",  # and it needs this
)

_OPTIONS = (
    *("--variant=minbase", "--format=tar", "--quiet"),
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)


def base_key() -> tuple[str, ...]:
    """Return what the base system depends on."""
    return (SUITE, *PACKAGES, *_OPTIONS)


def build_base(target: Path) -> None:
    """Write the base system to the tar file `target`."""
    run(["mmdebstrap", *_OPTIONS, f"--include={','.join(PACKAGES)}", SUITE, target])
