"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import sys

from nexusctl.failure import USAGE, Failure
from nexusctl.stdio import Input


def need_terminal(command: str, *, yes: bool) -> None:
    """Refuse to go on where nobody can be asked and `yes` was not given. Raises Failure (USAGE)."""
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        what = " ".join(command.split()[1:3])
        raise Failure(
            f"without a terminal to ask on, {what} needs --yes", f"{command} --yes", USAGE
        )


async def agree(question: str, refusal: str, *, yes: bool) -> None:
    """Return once the user agrees; `yes` says that they have. Raises Failure with `refusal`."""
    if yes:
        return
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = b""
    async for chunk in Input().chunks():
        answer += chunk
        if b"\n" in answer:
            break
    if answer.strip().lower() not in {b"y", b"yes"}:
        raise Failure(refusal)
