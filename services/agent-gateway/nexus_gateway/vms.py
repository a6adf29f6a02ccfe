"""The VMs as vmm tells them. What was told last stands while vmm is down."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nexus.vmm.v1.vmm_pb2 import VmState
from nexus_rpc.errors import FailedPrecondition, NexusError, NotFound, Unavailable
from nexus_rpc.ids import check_vm_ref
from nexus_rpc.vms import LIVE, Lost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nexus.vmm.v1.vmm_pb2 import Vm, WatchVmsResponse
    from nexus_gateway.notice import Notice
    from nexus_gateway.vmm import Vmm

_log = logging.getLogger(__name__)

_CATCH_UP = 5.0
"""Seconds that WatchVms may lag behind what vmm answered."""


def is_live(vm: Vm) -> bool:
    """Whether the VM has a process whose vCPUs run: a paused guest is not to be called lost."""
    return vm.state in LIVE and vm.state != VmState.VM_STATE_PAUSED


class Vms:
    """A mirror of vmm's VMs; posts `changed` at every change."""

    def __init__(self, vmm: Vmm, changed: Notice) -> None:
        self._vmm = vmm
        self._changed = changed
        self._by_id: dict[str, Vm] = {}
        self._told: set[str] = set()
        self._synced = False
        self._complete = False

    async def follow(self, events: AsyncIterator[WatchVmsResponse | Lost]) -> None:
        """Take in what `nexus_rpc.vms.follow` yields, for ever."""
        async for event in events:
            self.apply(event)
            self._changed.post()

    def apply(self, event: WatchVmsResponse | Lost) -> None:
        """Take in one event."""
        if isinstance(event, Lost):
            _log.warning("vmm is not followed: %s", event.error.message)
            self._synced = False
            return
        match event.WhichOneof("event"):
            case "vm":
                self._by_id[event.vm.id] = event.vm
                self._told.add(event.vm.id)
            case "deleted_vm_id":
                self._by_id.pop(event.deleted_vm_id, None)
                self._told.discard(event.deleted_vm_id)
            case "missed":
                self._told.clear()
                self._synced = False
            case "synced":
                for gone in self._by_id.keys() - self._told:
                    del self._by_id[gone]
                self._synced = self._complete = True
                _log.info("following vmm", extra={"vms": len(self._by_id)})

    def __iter__(self) -> Iterator[Vm]:
        return iter(tuple(self._by_id.values()))

    def get(self, vm_id: str) -> Vm | None:
        """Return the VM with that id as it was told last."""
        return self._by_id.get(vm_id)

    async def synced(self) -> None:
        """Return once vmm has told all its VMs, at once if it has and is still followed."""
        while not self._synced:
            await self._changed.wait()

    async def find(self, vm: str) -> Vm:
        """Return the VM with that id or name. NotFound (VM_NOT_FOUND)."""
        found = self.look_up(vm)
        return found if found is not None else await self._ask(vm)

    async def find_live(self, vm: str, *, fresh: bool = False) -> Vm:
        """Return the live VM with that id or name; `fresh`: of the boot that vmm knows now.

        NotFound (VM_NOT_FOUND); FailedPrecondition (VM_NOT_LIVE, VM_PAUSED). WatchVms lags a
        little, so vmm has the last word before one is raised, unless it is down.
        """
        found = self.look_up(vm)
        if fresh or found is None or not is_live(found):
            found = await self._ask(vm)
        if not is_live(found):
            state = VmState.Name(found.state).removeprefix("VM_STATE_")
            if found.state == VmState.VM_STATE_PAUSED:
                raise FailedPrecondition(
                    "VM_PAUSED", f"VM {vm!r} is paused: resume it first", vm=vm, state=state
                )
            raise FailedPrecondition(
                "VM_NOT_LIVE", f"VM {vm!r} is {state}: start it first", vm=vm, state=state
            )
        return found

    def look_up(self, vm: str) -> Vm | None:
        """Return the VM with that id or name as it was told last."""
        check_vm_ref("vm", vm)
        if vm in self._by_id:
            return self._by_id[vm]
        return next((known for known in self._by_id.values() if known.name == vm), None)

    async def _ask(self, vm: str) -> Vm:
        try:
            answer = await self._vmm.get(vm)
        except NotFound:
            raise _not_found(vm) from None
        except NexusError as error:
            return self._last_known(vm, error)
        await self._caught_up(answer)
        return answer

    def _last_known(self, vm: str, error: NexusError) -> Vm:
        known = self.look_up(vm)
        if known is not None:
            return known
        if self._complete:
            raise _not_found(vm)
        raise Unavailable(
            "VMM_UNREACHABLE",
            f"VM {vm!r} is not known here and vmm does not answer: {error.message}",
        )

    async def _caught_up(self, answer: Vm) -> None:
        """Return once the mirror has heard of this boot, or after `_CATCH_UP` seconds."""
        try:
            async with asyncio.timeout(_CATCH_UP):
                while self._synced and not self._has_heard_of(answer):
                    await self._changed.wait()
        except TimeoutError:
            _log.warning("WatchVms lags behind vmm", extra={"vm": answer.id})

    def _has_heard_of(self, vm: Vm) -> bool:
        known = self._by_id.get(vm.id)
        return known is not None and known.boot == vm.boot


def _not_found(vm: str) -> NotFound:
    return NotFound("VM_NOT_FOUND", f"there is no VM {vm!r}", vm=vm)
