"""The host's programs, as the modules of this package run them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nexusctl.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = 127
"""Exit code of a program that there is not, as a shell has it."""

_SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """How a program ended, and what it printed."""

    code: int
    out: str = ""
    err: str = ""


@dataclass(frozen=True)
class Guests:
    """Whom to let pass: names of first bridges (others begin with the same), whether there is IPv6,
    and the ports of the host that they may reach, as protocol and number.
    """

    bridges: tuple[str, ...]
    ipv6: bool
    ports: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Finding:
    """A firewall that stops guests: why, the commands that change it, and how long they hold."""

    why: str
    commands: tuple[tuple[str, ...], ...]
    lasts: str


class Host(Protocol):
    """Where programs are run."""

    async def run(self, *argv: str) -> Done:
        """Run a program to its end; one that there is not gives `MISSING`. Raises Failure."""


class ThisHost:
    """This very host, in plain English."""

    async def run(self, *argv: str) -> Done:
        """See `Host`."""
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | {"LC_ALL": "C"},
            )
        except FileNotFoundError:
            return Done(MISSING)
        try:
            async with asyncio.timeout(_SECONDS):
                out, err = await process.communicate()
        except TimeoutError:
            raise Failure(f"{argv[0]} did not end within {_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Done(
            process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        )


async def missing(
    host: Host, wanted: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]
) -> tuple[tuple[str, ...], ...]:
    """Return the commands whose check, the first of each pair, does not succeed."""
    return tuple([command for check, command in wanted if (await host.run(*check)).code])
