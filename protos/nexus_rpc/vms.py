"""What clients of vmm share: which VMs are live, and following them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from nexus.vmm.v1 import vmm_pb2, vmm_pb2_grpc
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
    """The stream broke. What is known stays true as far as anyone knows; the present follows."""

    error: NexusError


async def follow(target: str) -> AsyncIterator[vmm_pb2.WatchVmsResponse | Lost]:
    """Yield what WatchVms at `target` tells, for ever.

    Each time the stream breaks it yields `Lost` once, then tries again after 0.2 s, doubling to
    5 s. A new stream begins with the present: VMs not told before `synced` do not exist any more.
    """
    wait = _FIRST_WAIT
    lost = False
    async with connect(target) as channel:
        stub = vmm_pb2_grpc.VmServiceStub(channel)
        while True:
            try:
                async for event in stub.WatchVms(vmm_pb2.WatchVmsRequest()):
                    wait, lost = _FIRST_WAIT, False
                    yield event
                error = NexusError("ENDED", "vmm ended the stream")
            except grpc.aio.AioRpcError as cause:
                error = from_rpc_error(cause)
            if not lost:
                yield Lost(error)
                lost = True
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)
