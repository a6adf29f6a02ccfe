"""One wake-up for each VM: none waits for another, and nothing is polled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """Calls `wake(vm_id, due)` when the time set for a VM has come; `due` is passed through."""

    def __init__(self, wake: Callable[[str, int], None]) -> None:
        self._wake = wake
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def set(self, vm_id: str, due: int, seconds: float) -> None:
        """Set the VM's only wake-up, in place of an earlier one."""
        self.cancel(vm_id)
        loop = asyncio.get_running_loop()
        self._handles[vm_id] = loop.call_later(seconds, self._fire, vm_id, due)

    def cancel(self, vm_id: str) -> None:
        """Forget the VM's wake-up, if there is one."""
        handle = self._handles.pop(vm_id, None)
        if handle:
            handle.cancel()

    def close(self) -> None:
        """Forget them all."""
        while self._handles:
            self._handles.popitem()[1].cancel()

    def _fire(self, vm_id: str, due: int) -> None:
        del self._handles[vm_id]
        self._wake(vm_id, due)
