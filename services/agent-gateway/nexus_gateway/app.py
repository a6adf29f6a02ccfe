"""The composition root: what the gateway is made of, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexus.gateway.v1 import gateway_pb2_grpc
from nexus.vmm.v1 import vmm_pb2_grpc
from nexus_gateway import mcp_door, metrics
from nexus_gateway.guest import Timing
from nexus_gateway.guests import Guests
from nexus_gateway.notice import Notice
from nexus_gateway.servicer import Servicer
from nexus_gateway.streams import Streams
from nexus_gateway.uses import Uses
from nexus_gateway.vmm import GrpcVmm
from nexus_gateway.vms import Vms
from nexus_gateway.vsock import dial
from nexus_rpc.channel import connect
from nexus_rpc.server import Binding
from nexus_rpc.vms import follow

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from nexus_gateway.settings import Settings


async def compose(
    settings: Settings, stack: AsyncExitStack, tasks: asyncio.TaskGroup
) -> Sequence[Binding]:
    """Open what the service needs and start its work; see `nexus_rpc.server.main`."""
    channel = await stack.enter_async_context(connect(settings.vmm))
    vmm = GrpcVmm(vmm_pb2_grpc.VmServiceStub(channel))
    changed = Notice()
    vms = Vms(vmm, changed)
    guests = Guests(vms, vmm, dial, Timing(ready=settings.agent_ready_timeout), changed)
    metrics.observe_guests(guests.count)
    uses = Uses(vms, vmm)
    streams = Streams(dial, uses.of)
    if settings.mcp.listen:
        token = mcp_door.read_token(settings.mcp.token)
        listener = stack.enter_context(mcp_door.listening(settings.mcp.listen))
        tasks.create_task(mcp_door.serve(listener, settings.mcp, token, vms, streams))
    tasks.create_task(vms.follow(follow(settings.vmm)))
    tasks.create_task(guests.run())
    tasks.create_task(uses.run())
    return [
        Binding(
            "nexus.gateway.v1.GuestService",
            gateway_pb2_grpc.add_GuestServiceServicer_to_server,
            Servicer(vms, guests, streams),
        )
    ]
