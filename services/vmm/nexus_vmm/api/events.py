"""What watchers are told, as the proto says it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexus_vmm.api.convert import to_proto
from nexus_vmm.records.changes import Gone
from nexus_vmm.records.watch import Missed, Synced

if TYPE_CHECKING:
    from nexus_vmm.places import Places
    from nexus_vmm.records.watch import Told
    from nexus_vmm.vm import Vm

_KEPT = 64
"""Changes that are kept as converted: those who keep up ask for them at about the same time."""


class Events:
    """Converts what watchers are told: each change once, however many watch."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._kept: OrderedDict[int, vmm_pb2.WatchVmsResponse] = OrderedDict()

    def of(self, told: Told) -> vmm_pb2.WatchVmsResponse:
        """Return what a watcher is told."""
        match told.what:
            case Synced():
                return vmm_pb2.WatchVmsResponse(synced=True, revision=told.revision)
            case Missed():
                return vmm_pb2.WatchVmsResponse(missed=True)
            case Gone(id=vm_id):
                return vmm_pb2.WatchVmsResponse(deleted_vm_id=vm_id, revision=told.revision)
            case vm:
                return self._changed(vm, told.revision)

    def _changed(self, vm: Vm, revision: int) -> vmm_pb2.WatchVmsResponse:
        event = self._kept.get(revision)
        if event is None:
            event = vmm_pb2.WatchVmsResponse(vm=to_proto(vm, self._places), revision=revision)
            if revision:  # the present is told to one
                self._kept[revision] = event
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return event
