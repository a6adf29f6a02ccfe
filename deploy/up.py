"""What `make up` does: prerequisites, guest artifacts, the dev host, and first light."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deploy.command import Failure, run
from deploy.devhost.devhost import DevHost
from deploy.devhost.layout import REPO, Layout
from deploy.packages import install_packages
from deploy.steps import step

_BOOT_SECONDS = 180

_NEXT = """
Ready. To go on:

  export PATH={bin}:$PATH NEXUS_CONFIG={client}
  nexusctl vm list
  nexusctl vm exec hello -- uname -a
  nexusctl vm run debian -- python3 -c 'print(6 * 7)'
  claude mcp add hello -- nexusctl mcp-bridge --vm hello
  python3 deploy/devhost/devhost.py exec     # a shell on the dev host
  make down                                  # stops it all; disks stay
"""


def prerequisites() -> None:
    """Install the Debian packages that are missing, and the development environment."""
    with step("Install Debian packages") as notes:
        notes.extend(install_packages())
    with step("Make the development environment"):
        run(["make", "--no-print-directory", "venv"], cwd=REPO)


def guest_artifacts(layout: Layout) -> None:
    """Build kernel, initramfs, image and runtime drive; their builder knows what is unchanged."""
    with step("Build the guest artifacts"):
        run(["/usr/bin/python3", REPO / "deploy/guest/build.py", "--out", layout.guest])


def first_light(layout: Layout) -> None:
    """Have a VM named `hello` that takes commands. What there is of it is kept."""
    nexusctl = layout.cache / "venv/bin/nexusctl"
    env = os.environ | {"NEXUS_CONFIG": str(layout.client)}
    with step("Create the VM hello") as notes:
        try:
            run([nexusctl, "vm", "inspect", "hello"], env=env, timeout=60)
            notes.append("as it was")
        except Failure:
            run([nexusctl, "vm", "create", "hello", "--image", "debian"], env=env, timeout=60)
    with step("Boot it until it takes commands") as notes:
        if _answers(nexusctl, env):
            notes.append("as it was")
        else:
            _boot(nexusctl, env)
    print(run([nexusctl, "vm", "exec", "hello", "--", "uname", "-a"], env=env, timeout=60), end="")


def _boot(nexusctl: Path, env: dict[str, str]) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    try:
        run([nexusctl, "vm", "start", "hello"], env=env, timeout=_BOOT_SECONDS)
    except Failure:
        # After a boot of a slow host it may be live already, and not answer yet.
        while not _answers(nexusctl, env):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _answers(nexusctl: Path, env: dict[str, str]) -> bool:
    done = subprocess.run(
        [nexusctl, "vm", "exec", "hello", "--", "true"],
        env=env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0


def main() -> int:
    """Do all of it. Returns the exit code."""
    layout = Layout()
    begin = time.monotonic()
    try:
        prerequisites()
        guest_artifacts(layout)
        devhost = DevHost(layout)
        devhost.build()
        devhost.start()
        first_light(layout)
    except (Failure, subprocess.TimeoutExpired) as error:
        print(f"\nmake up: {error}", file=sys.stderr)
        return 1
    bin_folder = layout.cache / "venv/bin"
    print(_NEXT.format(bin=bin_folder, client=layout.client))
    print(f"In {time.monotonic() - begin:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
