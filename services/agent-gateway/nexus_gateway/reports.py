"""Telling vmm how guests are, whatever either side went through meanwhile.

Not a queue of events but a comparison: as long as vmm's state of the VM is behind the guest's,
the next event on the way is reported. So a restart of vmm or of the gateway loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus.vmm.v1.vmm_pb2 import GuestEvent, VmState
from nexus_gateway.guest import State
from nexus_rpc.errors import NexusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.guest import Guest
    from nexus_gateway.notice import Notice
    from nexus_gateway.vmm import Vmm
    from nexus_gateway.vms import Vms

_log = logging.getLogger(__name__)
_LONGEST_WAIT = 16.0

_HELLO = GuestEvent.GUEST_EVENT_HELLO
_PROVISIONING = GuestEvent.GUEST_EVENT_PROVISIONING
_READY = GuestEvent.GUEST_EVENT_READY
_LOST = GuestEvent.GUEST_EVENT_LOST

# Where the guest is -> where vmm has the VM -> what to report next.
_NEXT: dict[State, dict[VmState.ValueType, GuestEvent.ValueType]] = {
    State.CONNECTING: {},
    State.PROVISIONING: {
        VmState.VM_STATE_RUNNING: _HELLO,
        VmState.VM_STATE_UNREACHABLE: _HELLO,
        VmState.VM_STATE_ONLINE: _PROVISIONING,
    },
    State.READY: {
        VmState.VM_STATE_RUNNING: _HELLO,
        VmState.VM_STATE_UNREACHABLE: _HELLO,
        VmState.VM_STATE_ONLINE: _PROVISIONING,
        VmState.VM_STATE_PROVISIONING: _READY,
    },
    State.UNREACHABLE: {
        VmState.VM_STATE_RUNNING: _LOST,
        VmState.VM_STATE_ONLINE: _LOST,
        VmState.VM_STATE_PROVISIONING: _LOST,
        VmState.VM_STATE_READY: _LOST,
    },
}


def next_event(guest: State, vm: VmState.ValueType) -> GuestEvent.ValueType | None:
    """Return what vmm must hear next, or None if it knows all there is."""
    return _NEXT[guest].get(vm)


class Reporter:
    """Keeps vmm informed of the guest in one boot of a VM."""

    def __init__(
        self, vm: Vm, guest: Callable[[], Guest], vms: Vms, vmm: Vmm, changed: Notice
    ) -> None:
        self._vm = vm
        self._guest = guest
        self._vms = vms
        self._vmm = vmm
        self._changed = changed

    async def run(self) -> None:
        """Report until cancelled."""
        known = self._state(self._vm.state)
        wait = 1.0
        while True:
            guest = self._guest()
            event = next_event(guest.state, known)
            if event is None:
                await self._changed.wait()
                known = self._state(known)
                continue
            before = known
            try:
                known = (await self._vmm.report(self._vm, event, guest.reason)).state
            except NexusError as error:
                _log.warning("vmm takes no report: %s", error.message, extra={"vm": self._vm.id})
            if known != before:
                wait = 1.0
                continue
            # Not taken, or vmm has set about it: booting once more changes no state at first.
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
            known = self._state(known)

    def _state(self, otherwise: VmState.ValueType) -> VmState.ValueType:
        """Return where vmm has the VM, as far as the mirror has heard of this boot."""
        told = self._vms.get(self._vm.id)
        return told.state if told is not None and told.boot == self._vm.boot else otherwise
