"""What clients of vmm share: which VMs are live, and following them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
from nexus.vmm.v1.vmm_pb2 import WatchVmsRequest, WatchVmsResponse
from nexus_rpc.channel import connect
from nexus_rpc.errors import NexusError, from_rpc_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIVE = frozenset(
    {
        vmm_pb2.VM_STATE_RUNNING,
        vmm_pb2.VM_STATE_ONLINE,
        vmm_pb2.VM_STATE_PROVISIONING,
        vmm_pb2.VM_STATE_READY,
        vmm_pb2.VM_STATE_UNREACHABLE,
        vmm_pb2.VM_STATE_PAUSED,
    }
)
"""The states in which a process exists, as vmm.proto has them."""

_FIRST_WAIT = 0.2
_LONGEST_WAIT = 5.0


@dataclass(frozen=True)
class Lost:
    """The stream broke. What is known stands as far as anyone knows; the next stream adds to it."""

    error: NexusError


async def follow(target: str) -> AsyncIterator[WatchVmsResponse | Lost]:
    """Yield what WatchVms at `target` tells, for ever: the present, `synced`, then changes.

    Each time the stream breaks it yields `Lost` once, then tries again after 0.2 s, doubling to
    5 s. The next stream carries on where that one broke: VMs that have not changed are not told
    again. Where it cannot, `missed` comes before anything else of it, and then the present: what
    is not told from there to `synced` does not exist any more. `missed` may come in the middle of a
    stream too.
    """
    wait, lost = _FIRST_WAIT, False
    revision, told = 0, False
    async with connect(target) as channel:
        stub = vmm_pb2_grpc.VmServiceStub(channel)
        while True:
            # Broken before the first present was whole: it is told anew.
            again = told and not revision
            try:
                async for event in stub.WatchVms(WatchVmsRequest(after_revision=revision)):
                    wait, lost = _FIRST_WAIT, False
                    if again and not event.missed:
                        yield WatchVmsResponse(missed=True)
                    again, told = False, True
                    revision = 0 if event.missed else event.revision or revision
                    yield event
                error = NexusError("ENDED", "vmm ended the stream")
            except grpc.aio.AioRpcError as cause:
                error = from_rpc_error(cause)
            if not lost:
                yield Lost(error)
                lost = True
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
