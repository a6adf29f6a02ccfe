"""The dev host, as system tests and benchmarks use it from outside."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT_CONFIG = ROOT / ".cache/devhost/client.toml"
COMMAND_SECONDS = 120


class DevHost:
    """Runs commands in the dev host, and nexusctl and other clients against it."""

    def run(self, command, *, check=True, stdin=None, timeout=COMMAND_SECONDS):
        """Run a shell command as root in the dev host; return the finished process."""
        return self._finished(self._exec(command), check, stdin, timeout)

    def out(self, command, **options):
        """Return what a command in the dev host prints, without the last line feed."""
        return self.run(command, **options).stdout.decode().rstrip("\n")

    def start(self, command):
        """Start a command in the dev host; the caller ends it."""
        return subprocess.Popen(
            self._exec(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def nexusctl(self, *arguments, check=True, stdin=None, timeout=COMMAND_SECONDS):
        """Run nexusctl on this machine against the dev host, over TCP with mTLS."""
        return self._finished(self.nexusctl_command(*arguments), check, stdin, timeout)

    def json(self, *arguments):
        """Return what a reading nexusctl command says with --json."""
        return json.loads(self.nexusctl(*arguments, "--json").stdout)

    def nexusctl_command(self, *arguments):
        """Return the argv of nexusctl against the dev host."""
        return [
            "env",
            f"NEXUS_CONFIG={CLIENT_CONFIG}",
            sys.executable,
            "-m",
            "nexusctl",
            *arguments,
        ]

    def exec(self, vm, *argv, check=True, stdin=None, timeout=COMMAND_SECONDS):
        """Run a command in a VM and return the finished process."""
        return self.nexusctl(
            "vm", "exec", vm, "--", *argv, check=check, stdin=stdin, timeout=timeout
        )

    def start_exec(self, vm, *argv):
        """Start a command in a VM; the caller ends it."""
        command = self.nexusctl_command("vm", "exec", vm, "--", *argv)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @contextmanager
    def mcp_forwarded(self, port=7710):
        """Offer the dev host's MCP endpoint at a port of this machine's loopback."""
        script = ROOT / "deploy/devhost/devhost.py"
        forward = subprocess.Popen(["/usr/bin/python3", str(script), "forward", str(port)])
        try:
            self.until("the forward listens", lambda: _listens(port))
            yield port
        finally:
            forward.terminate()
            forward.wait()

    def until(self, what, condition, seconds=60):
        """Wait for `condition()` to be true and return what it gave; fail after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s still not: {what}")
            time.sleep(0.2)

    def _exec(self, command):
        script = ROOT / "deploy/devhost/devhost.py"
        return ["/usr/bin/python3", str(script), "exec", "bash", "-c", command]

    def _finished(self, argv, check, stdin, timeout):
        done = subprocess.run(
            argv,
            input=stdin or b"",
            capture_output=True,
            timeout=timeout,
            env=os.environ,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{shlex.join(argv)} ended with {done.returncode}\n"
                f"{done.stdout.decode(errors='replace')}\n{done.stderr.decode(errors='replace')}"
            )
        return done


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
