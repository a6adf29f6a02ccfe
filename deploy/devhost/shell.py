"""Commands and files in the dev host, by ssh over one shared connection."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from deploy.devhost.layout import MCP_PORT, SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deploy.devhost.layout import Layout


class Shell:
    """Runs things in the dev host as root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def exec(self, argv: Sequence[str]) -> int:
        """Run a command with this process's input and output; return its exit code.

        255 is ssh's own: the dev host cannot be reached.
        """
        terminal = ("-t",) if os.isatty(0) and os.isatty(1) else ()
        return self._call("ssh", *terminal, "root@127.0.0.1", "--", shlex.join(argv))

    def capture(self, argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a command and return its exit code and output. `timeout` is in seconds."""
        return subprocess.run(
            [*self._options("ssh"), "root@127.0.0.1", "--", shlex.join(argv)],
            cwd=self._layout.run,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def copy(self, sources: Sequence[str], target: str) -> int:
        """Copy files like scp; a path in the dev host begins with ":". Returns the exit code."""
        paths = [
            f"root@127.0.0.1{path}" if path.startswith(":") else os.path.abspath(path)  # noqa: PTH100  # keeps a final slash's meaning to scp
            for path in (*sources, target)
        ]
        return self._call("scp", "-r", "-p", "-q", *paths)

    def forward(self, port: int) -> int:
        """Offer the MCP endpoint on this machine's loopback until interrupted."""
        return self._call(
            "ssh", "-N", "-L", f"127.0.0.1:{port}:127.0.0.1:{MCP_PORT}", "root@127.0.0.1"
        )

    def close(self) -> None:
        """End the shared connection, if there is one."""
        if (self._layout.run / "ssh.sock").exists():
            subprocess.run(
                [*self._options("ssh"), "-O", "exit", "root@127.0.0.1"],
                cwd=self._layout.run,
                capture_output=True,
                timeout=10,
                check=False,
            )

    def _call(self, program: str, *args: str) -> int:
        return subprocess.run(
            [*self._options(program), *args], cwd=self._layout.run, check=False
        ).returncode

    def _options(self, program: str) -> list[str | Path]:
        port = "-P" if program == "scp" else "-p"
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ControlMaster": "auto",
            "ControlPath": "ssh.sock",  # relative: a socket's address holds 107 bytes
            "ControlPersist": "1h",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "15",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": f'"{self._layout.ssh / "known_hosts"}"',
        }
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return [
            program,
            "-F",
            "none",
            port,
            str(SSH_PORT),
            "-i",
            self._layout.ssh / "client_key",
            *flags,
        ]
