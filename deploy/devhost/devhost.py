"""The dev host: a Debian machine under QEMU in which the real units run and start real microVMs.

Building needs root (for the owners of files in the image); running does not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.command import Failure
from deploy.devhost.build import build
from deploy.devhost.layout import MCP_PORT, SERVICES, Layout
from deploy.devhost.machine import Machine
from deploy.devhost.shell import Shell
from deploy.steps import step

_START_SECONDS = 240.0
_SERVICE_SECONDS = 180.0


class DevHost:
    """What the commands do."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._machine = Machine(layout)
        self._shell = Shell(layout)

    def build(self) -> int:
        """Build what changed."""
        build(self._layout)
        return 0

    def start(self) -> int:
        """Start, and return once all services are ready. Running already: only checks them.

        A dev host of an older build is stopped first; its VMs' disks stay.
        """
        if not self._layout.image.exists():
            raise Failure("there is no dev host; build it first: make up")
        deadline = time.monotonic() + _START_SECONDS
        if self._machine.running() and self._machine.outdated():
            self.stop()
        if not self._machine.running():
            with step("Boot the dev host"):
                self._machine.start()
                self._machine.wait_for_ssh(deadline)
        with step("Wait for the services"):
            self._wait_for_services()
        return 0

    def stop(self) -> int:
        """Shut down."""
        with step("Stop the dev host") as notes:
            if self._layout.run.is_dir():
                self._shell.close()
            if not self._machine.stop():
                notes.append("was not running")
        return 0

    def status(self) -> int:
        """Say whether it runs, and how its services are. 3: it does not run, 1: a service fails."""
        if not self._machine.running():
            print("not running; start it: make up")
            return 3
        done = self._shell.capture(["systemctl", "is-active", *SERVICES], timeout=30)
        for name, state in zip(SERVICES, done.stdout.split(), strict=False):
            print(f"{name:<15} {state}")
        return 1 if done.returncode else 0

    def clean(self) -> int:
        """Stop, and remove all that was built, VMs and their disks too."""
        self.stop()
        shutil.rmtree(self._layout.home, ignore_errors=True)
        return 0

    def _wait_for_services(self) -> None:
        """Wait until systemd has started them: each says READY=1 once it serves its socket."""
        done = self._shell.capture(["systemctl", "start", *SERVICES], timeout=_SERVICE_SECONDS)
        if done.returncode:
            said = self._shell.capture(
                [
                    "sh",
                    "-c",
                    "systemctl --failed --no-legend; journalctl -b -n 40 --no-pager -u 'nexus-*'",
                ],
                timeout=30,
            )
            raise Failure(
                f"a service did not start: {done.stderr.strip()}\n{said.stdout}\n"
                "Look further with: python3 deploy/devhost/devhost.py exec journalctl -b"
            )


def main() -> int:
    """Run one command. Returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("build", "start", "stop", "status", "clean"):
        commands.add_parser(name, help=(getattr(DevHost, name).__doc__ or "").partition(".")[0])
    runner = commands.add_parser("exec", help="Run a command in it, as root")
    runner.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")
    copier = commands.add_parser("copy", help="Copy files; a path in the dev host begins with ':'")
    copier.add_argument("sources", nargs="+")
    copier.add_argument("target")
    forwarder = commands.add_parser("forward", help="Offer the MCP endpoint here until interrupted")
    forwarder.add_argument("port", nargs="?", type=int, default=MCP_PORT)
    args = parser.parse_args()
    layout = Layout()
    try:
        if args.command == "exec":
            Shell(layout).exec(args.argv or ["bash", "-l"])
        if args.command == "copy":
            Shell(layout).copy(args.sources, args.target)
        if args.command == "forward":
            Shell(layout).forward(args.port)
        code: int = getattr(DevHost(layout), args.command)()
    except Failure as error:
        print(f"devhost: {error}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
