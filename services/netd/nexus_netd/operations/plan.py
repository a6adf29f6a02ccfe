"""An operation's way back: what was done is undone, last first, when a later step fails."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

_log = logging.getLogger(__name__)


class Undo:
    """A block of steps; each says beforehand how to take it back, and must bear a half-done step.

    `failed` is called when that fails too: what remains is then put right by a repair.
    """

    def __init__(self, failed: Callable[[], object]) -> None:
        self._failed = failed
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def push(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        """Do `step` if the block fails from here on; `what` names it for people."""
        self._steps.append((what, step))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        for what, step in reversed(self._steps):
            try:
                await step()
            except NexusError as cause:
                # The caller is owed the first error.
                _log.warning("could not undo %r: %s", what, cause)
                self._failed()
