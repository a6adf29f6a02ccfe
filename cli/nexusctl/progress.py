"""Progress of what takes over a second, on a terminal's standard error and nowhere else."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nexusctl import terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_QUIET_SECONDS = 1.0
_REDRAW_SECONDS = 0.25
_CLEAR = "\r\x1b[2K"


class Progress:
    """What is being done right now; whoever does it sets `text`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def draw(self, seconds: float) -> None:
        """Write the line over the one before."""
        columns = terminal.width(sys.stderr) or 80
        line = f"{terminal.printable(self.text)} ({seconds:.0f} s)"[: columns - 1]
        sys.stderr.write(_CLEAR + line)
        sys.stderr.flush()


@asynccontextmanager
async def progress(text: str) -> AsyncIterator[Progress]:
    """Show `text` and the seconds while the block runs, once it has run for one second."""
    shown = Progress(text)
    if not terminal.is_terminal(sys.stderr):
        yield shown
        return
    drawing = asyncio.create_task(_keep_drawing(shown))
    try:
        yield shown
    finally:
        drawing.cancel()
        await asyncio.wait([drawing])


async def _keep_drawing(shown: Progress) -> None:
    began = time.monotonic()
    await asyncio.sleep(_QUIET_SECONDS)
    try:
        while True:
            shown.draw(time.monotonic() - began)
            await asyncio.sleep(_REDRAW_SECONDS)
    finally:
        sys.stderr.write(_CLEAR)
        sys.stderr.flush()
