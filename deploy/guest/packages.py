"""Debian packages by the machine's own apt: their versions, their files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.command import Failure, run

if TYPE_CHECKING:
    from collections.abc import Sequence


def versions(names: Sequence[str]) -> list[str]:
    """Return "name=version" of what apt would install. Failure if it does not know one."""
    found: dict[str, str] = {}
    name = ""
    for line in run(["apt-cache", "show", "--no-all-versions", *names]).splitlines():
        field, _, value = line.partition(": ")
        if field == "Package":
            name = value
        elif field == "Version":
            found[name] = value
    if missing := [name for name in names if name not in found]:
        raise Failure(f"apt knows no {', '.join(missing)}; run `apt-get update`")
    return [f"{name}={found[name]}" for name in names]


def unpack(packages: Sequence[str], target: Path) -> None:
    """Fetch "name=version" packages, which apt verifies, and unpack them below `target`."""
    with tempfile.TemporaryDirectory() as folder:
        run(["apt-get", "download", "--quiet", *packages], cwd=Path(folder))
        for package in sorted(Path(folder).glob("*.deb")):
            run(["dpkg", "-x", package, target])


def sources() -> list[str]:
    """Return apt's lines for the Debian archives that this machine is configured with."""
    shown = run(
        [
            *("apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"),
            *("Created-By: Packages", "Origin: Debian"),
        ]
    )
    lines = sorted({line for line in shown.splitlines() if line})
    if not lines:
        raise Failure("apt has no index of Debian; run `apt-get update`")
    return lines
