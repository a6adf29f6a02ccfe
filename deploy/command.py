"""The one place where the tools of this folder run other programs."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TAIL_LINES = 30


class Failure(Exception):
    """Something did not work. The message says what, why, and the way out."""


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 900,
) -> str:
    """Run a program to its end and return its standard output. `timeout` is in seconds.

    Raises Failure with the end of what it printed when it fails, is missing, or takes too long.
    """
    shown = shlex.join(map(str, argv))
    try:
        done = subprocess.run(
            list(map(str, argv)),
            cwd=cwd,
            env=env,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise Failure(
            f"{error.filename}: not found, wanted for: {shown}; `make up` installs what is needed"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Failure(f"no end after {timeout:g} s: {shown}") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-_TAIL_LINES:]
        raise Failure("\n".join([f"exit code {done.returncode} from: {shown}", *lines]))
    return done.stdout
