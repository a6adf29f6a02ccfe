"""Commands and files in the dev host, by ssh over one shared connection."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING, NoReturn

from deploy.command import Failure
from deploy.devhost.layout import MCP_PORT, SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.devhost.layout import Layout

_HOST = "root@127.0.0.1"


class Shell:
    """Runs things in the dev host as root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def exec(self, argv: Sequence[str]) -> NoReturn:
        """Become ssh that runs a command; its exit code is the command's.

        255 is ssh's own: the dev host cannot be reached.
        """
        terminal = ("-t",) if os.isatty(0) and os.isatty(1) else ()
        self._become([*self._command("ssh"), *terminal, _HOST, "--", shlex.join(argv)])

    def capture(self, argv: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """Run a command and return its exit code and output.

        `timeout` is in seconds; past it, Failure.
        """
        shown = shlex.join(argv)
        try:
            return subprocess.run(
                [*self._command("ssh"), _HOST, "--", shown],
                cwd=self._layout.run,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"no end after {timeout:g} s in the dev host: {shown}") from error

    def copy(self, sources: Sequence[str], target: str) -> NoReturn:
        """Become scp; a path in the dev host begins with ":"."""
        paths = [
            f"{_HOST}{path}" if path.startswith(":") else os.path.abspath(path)  # noqa: PTH100  # keeps a final slash's meaning to scp
            for path in (*sources, target)
        ]
        self._become([*self._command("scp"), "-r", "-p", "-q", *paths])

    def forward(self, port: int) -> NoReturn:
        """Become ssh that offers the MCP endpoint on this machine's loopback, until it is ended."""
        # Over a connection of its own: the shared one would keep the port after the end.
        ssh = self._command("ssh", ControlPath="none", ExitOnForwardFailure="yes")
        way = f"127.0.0.1:{port}:127.0.0.1:{MCP_PORT}"
        self._become([*ssh, "-N", "-L", way, _HOST])

    def close(self) -> None:
        """End the shared connection, if there is one."""
        if (self._layout.run / "ssh.sock").exists():
            subprocess.run(
                [*self._command("ssh"), "-O", "exit", _HOST],
                cwd=self._layout.run,
                capture_output=True,
                timeout=10,
                check=False,
            )

    def _become(self, argv: list[str]) -> NoReturn:
        # In this process's place, so that signals reach it and nothing is left behind.
        try:
            os.chdir(self._layout.run)
        except FileNotFoundError:
            raise Failure("the dev host was never started; start it: make up") from None
        os.execvp(argv[0], argv)  # noqa: S606  # no shell wanted

    def _command(self, program: str, **changed: str) -> list[str]:
        port = "-P" if program == "scp" else "-p"
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ControlMaster": "auto",
            "ControlPath": "ssh.sock",  # relative: a socket's address holds 107 bytes
            "ControlPersist": "1h",
            "IdentitiesOnly": "yes",
            "IdentityFile": f'"{self._layout.ssh / "client_key"}"',
            "LogLevel": "ERROR",
            "ServerAliveInterval": "15",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": f'"{self._layout.ssh / "known_hosts"}"',
        } | changed
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return [program, "-F", "none", port, str(SSH_PORT), *flags]
