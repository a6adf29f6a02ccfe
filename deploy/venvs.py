"""One virtual environment for each part, with only what that part needs.

Versions are those of requirements.lock, used as constraints; our own distributions go in as wheels
built here, without a look at the network for anything that uv has in its cache.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.command import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PYTHON = "/usr/bin/python3"
"""The interpreter of every environment: the system's, so that it gets the system's updates."""

HOME = "usr/lib/nexus"
"""Where environments are, from the root of the machine."""


@dataclass(frozen=True)
class Environment:
    """An environment: its folder, its console script, and our folders that go into it."""

    name: str
    script: str
    sources: Sequence[str]


ENVIRONMENTS = (
    Environment("vmm", "nexus-vmm", ("protos", "services/vmm")),
    Environment("netd", "nexus-netd", ("protos", "services/netd")),
    Environment("dns", "nexus-dns", ("protos", "services/netd/dns")),
    Environment(
        "gateway",
        "nexus-gateway",
        ("protos", "services/agent-gateway/guest", "services/agent-gateway"),
    ),
    Environment("cli", "nexusctl", ("protos", "cli")),
)


@dataclass(frozen=True)
class Tools:
    """The repository, and the cache folder that `make venv` filled."""

    repo: Path
    cache: Path

    @property
    def uv(self) -> Path:
        """The package installer."""
        return self.cache / "uv/bin/uv"

    @property
    def python(self) -> Path:
        """The development environment's interpreter, which has the build backend."""
        return self.cache / "venv/bin/python"

    def build_wheels(self, into: Path) -> dict[str, Path]:
        """Build a wheel of each of our distributions; return them by source folder."""
        shutil.rmtree(into, ignore_errors=True)
        wheels = {}
        for source in dict.fromkeys(part for env in ENVIRONMENTS for part in env.sources):
            target = into / source.replace("/", "-")
            run(
                [self.python, "-m", "hatchling", "build", "--target", "wheel", "-d", target],
                cwd=self.repo / source,
            )
            (wheels[source],) = target.glob("*.whl")
        return wheels

    def install(self, environment: Environment, root: Path, wheels: dict[str, Path]) -> None:
        """Put an environment below `root`, in place of one that may be there.

        A service that runs from the old one goes on with what it has loaded until its restart.
        """
        final = root / HOME / environment.name
        fresh = final.with_name(f".{environment.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._uv("venv", "--python", PYTHON, fresh)
        self._uv(
            *("pip", "install", "--link-mode", "copy", "--python", fresh / "bin/python"),
            *("--constraints", self.repo / "requirements.lock"),
            *(wheels[source] for source in environment.sources),
        )
        _keep_scripts(fresh / "bin", environment)
        run([PYTHON, "-m", "compileall", "-q", "-j2", "-s", fresh, "-p", _home(environment), fresh])
        shutil.rmtree(final, ignore_errors=True)
        fresh.rename(final)

    def _uv(self, *args: str | Path) -> None:
        env = os.environ | {
            "UV_CACHE_DIR": str(self.cache / "uv/cache"),
            "UV_PYTHON_DOWNLOADS": "never",
        }
        run([self.uv, "--quiet", *args], env=env)


def _home(environment: Environment) -> str:
    return f"/{HOME}/{environment.name}"


def _keep_scripts(folder: Path, environment: Environment) -> None:
    """Keep the interpreter and our script, which must name where it will be, not where it is."""
    for path in folder.iterdir():
        if not path.name.startswith("python") and path.name != environment.script:
            path.unlink()
    script = folder / environment.script
    _, _, rest = script.read_text(encoding="utf-8").partition("\n")
    script.write_text(f"#!{_home(environment)}/bin/python -I\n{rest}", encoding="utf-8")
