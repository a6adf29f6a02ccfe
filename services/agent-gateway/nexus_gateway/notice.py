"""Telling any number of tasks that something changed."""

from __future__ import annotations

import asyncio


class Notice:
    """Wakes all who wait, each time `post` is called.

    Look at the state, then `wait` with no other await between: no change is missed.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def post(self) -> None:
        """Wake everyone who waits now."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return after the next `post`."""
        await self._event.wait()
