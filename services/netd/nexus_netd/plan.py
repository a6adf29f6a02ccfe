"""A plan: the steps of an operation in one place, each checked before it is done."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One change. `name` says for people what was done; `undo` must bear a half-done `do`."""

    name: str
    needed: Callable[[], Awaitable[bool]]
    do: Callable[[], Awaitable[object]]
    undo: Callable[[], Awaitable[object]] | None = None


async def carry_out(steps: Sequence[Step]) -> list[str]:
    """Do the steps that are needed, in order; return their names.

    When one fails, those done are undone, last first, and the failure is raised.
    """
    begun: list[Step] = []
    try:
        for step in steps:
            if await step.needed():
                begun.append(step)
                await step.do()
    except BaseException:
        for step in reversed(begun):
            await _undo(step)
        raise
    return [step.name for step in begun]


async def _undo(step: Step) -> None:
    if step.undo is None:
        return
    try:
        await step.undo()
    except NexusError as error:
        # What remains is put right by the next EnsureNetwork; the caller is owed the first error.
        _log.warning("could not undo %r: %s", step.name, error)
