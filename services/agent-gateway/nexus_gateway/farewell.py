"""Asking the agent of a VM that is being stopped to shut its guest down.

vmm waits for the guest's end, and ends it otherwise where it does not come (StopVm in vmm.proto).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus_gateway.link import Link
from nexus_guest.wire import CONTROL_PORT
from nexus_rpc.errors import DataLoss, NexusError, Unavailable

if TYPE_CHECKING:
    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.notice import Notice
    from nexus_gateway.vms import Vms
    from nexus_gateway.vsock import Dial

_TIMEOUT = 5.0
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0

_log = logging.getLogger(__name__)


class Farewell:
    """Asks in one boot of a VM, once for each stop, on a connection of its own.

    The one that is kept may be broken, or wait for the guest to be set up.
    """

    def __init__(self, vm: Vm, vms: Vms, dial: Dial, changed: Notice) -> None:
        self._vm = vm
        self._vms = vms
        self._dial = dial
        self._changed = changed

    async def run(self) -> None:
        """Ask whenever the VM is to stop, until cancelled."""
        while True:
            await self._until(stopping=True)
            await self._ask()
            await self._until(stopping=False)

    async def _ask(self) -> None:
        wait = _FIRST_WAIT
        while self._stopping():
            if await self._heard():
                return
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _heard(self) -> bool:
        """Ask once; whether the agent has heard it, whatever it makes of that."""
        fields = {"vm": self._vm.id, "vm_name": self._vm.name}
        try:
            async with await self._dial(
                self._vm.vsock_path, CONTROL_PORT, timeout=_TIMEOUT
            ) as connection:
                await Link(connection).shut_down(timeout=_TIMEOUT)
        except (Unavailable, DataLoss) as error:
            _log.info("a guest is not asked to shut down: %s", error.message, extra=fields)
            return False
        except NexusError as error:
            _log.warning("a guest does not shut down: %s", error.message, extra=fields)
        else:
            _log.info("a guest shuts down", extra=fields)
        return True

    def _stopping(self) -> bool:
        told = self._vms.get(self._vm.id)
        return told is not None and told.boot == self._vm.boot and told.stopping

    async def _until(self, *, stopping: bool) -> None:
        while self._stopping() is not stopping:
            await self._changed.wait()
