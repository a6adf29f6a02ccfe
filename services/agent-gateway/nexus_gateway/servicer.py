"""GuestService: converts between messages and the domain, and nothing else.

Calls that stream answers write them themselves: a call that ends early is then cancelled where it
waits, and what it holds is let go at once. gRPC leaves an async generator to the collector.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from nexus.gateway.v1 import gateway_pb2 as pb
from nexus.gateway.v1.gateway_pb2_grpc import GuestServiceServicer
from nexus_gateway import mcp_door
from nexus_gateway.operations import Command
from nexus_gateway.streams import Exit, FileInfo
from nexus_guest.wire import Kind
from nexus_rpc.errors import DeadlineExceeded, invalid_field

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from grpc.aio import ServicerContext

    from nexus_gateway.guest import Guest
    from nexus_gateway.guests import Guests
    from nexus_gateway.streams import Output, Streams
    from nexus_gateway.vms import Vms

_LONGEST_WAIT = 300.0
"""Seconds that a GetGuest without a deadline waits."""


class Servicer(GuestServiceServicer):
    """See gateway.proto."""

    def __init__(self, vms: Vms, guests: Guests, streams: Streams) -> None:
        self._vms = vms
        self._guests = guests
        self._streams = streams

    async def GetGuest(
        self,
        request: pb.GetGuestRequest,
        context: ServicerContext[pb.GetGuestRequest, pb.GetGuestResponse],
    ) -> pb.GetGuestResponse:
        """See gateway.proto."""
        if not request.wait_ready:
            vm = await self._vms.find_live(request.vm)
            return pb.GetGuestResponse(guest=_guest(self._guests.of(vm)))
        left = context.time_remaining()
        # A little early: an answer after the deadline would reach nobody.
        patience = _LONGEST_WAIT if left is None else max(left - 0.25, left * 0.9)
        try:
            async with asyncio.timeout(patience):
                return pb.GetGuestResponse(guest=_guest(await self._guests.ready(request.vm)))
        except TimeoutError:
            raise DeadlineExceeded(
                "GUEST_NOT_READY",
                f"VM {request.vm!r} is not ready after {patience:.1f} s:"
                f" {self._guests.why_not_ready(request.vm)}",
                vm=request.vm,
            ) from None

    async def Exec(  # type: ignore[override]  # see above
        self,
        request: pb.ExecRequest,
        context: ServicerContext[pb.ExecRequest, pb.ExecResponse],
    ) -> None:
        """See gateway.proto."""
        command = Command(
            argv=tuple(request.argv), env=dict(request.env), cwd=request.cwd, stdin=request.stdin
        )
        vm = await self._vms.find_live(request.vm)
        async with aclosing(self._streams.exec(vm, command)) as events:
            async for event in events:
                await context.write(_response(event))

    async def ReadFile(  # type: ignore[override]  # see above
        self,
        request: pb.ReadFileRequest,
        context: ServicerContext[pb.ReadFileRequest, pb.ReadFileResponse],
    ) -> None:
        """See gateway.proto."""
        vm = await self._vms.find_live(request.vm)
        async with aclosing(self._streams.read(vm, request.path)) as parts:
            async for part in parts:
                await context.write(_part(part))

    async def WriteFile(
        self,
        request_iterator: AsyncIterator[pb.WriteFileRequest],
        context: ServicerContext[pb.WriteFileRequest, pb.WriteFileResponse],
    ) -> pb.WriteFileResponse:
        """See gateway.proto."""
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("part") != "target":
            raise invalid_field("target", None, "the first message names the VM and the path")
        target = first.target
        vm = await self._vms.find_live(target.vm)
        mode = target.mode if target.HasField("mode") else None
        chunks = _chunks(request_iterator, context)
        size = await self._streams.write(vm, target.path, mode, chunks)
        return pb.WriteFileResponse(size=size)

    async def DeleteFile(
        self,
        request: pb.DeleteFileRequest,
        context: ServicerContext[pb.DeleteFileRequest, pb.DeleteFileResponse],  # noqa: ARG002
    ) -> pb.DeleteFileResponse:
        """See gateway.proto."""
        vm = await self._vms.find_live(request.vm)
        await self._streams.delete(vm, request.path)
        return pb.DeleteFileResponse()

    async def ConnectMcp(  # type: ignore[override]  # see above
        self,
        request_iterator: AsyncIterator[pb.ConnectMcpRequest],
        context: ServicerContext[pb.ConnectMcpRequest, pb.ConnectMcpResponse],
    ) -> None:
        """See gateway.proto."""
        first = await anext(request_iterator, None)
        if first is None:
            raise invalid_field("vm", None, "the first message names the VM")
        vm = await self._vms.find(first.vm)

        async def send(message: bytes) -> None:
            await context.write(pb.ConnectMcpResponse(message=message))

        session = await mcp_door.session(self._vms, self._streams, vm.id, send)
        await session.run(_messages(first, request_iterator))


async def _chunks(
    requests: AsyncIterator[pb.WriteFileRequest],
    context: ServicerContext[pb.WriteFileRequest, pb.WriteFileResponse],
) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") == "target":
            raise invalid_field(
                "target", request.target.path, "only the first message names a file"
            )
        yield request.data
    # A call that was given up also looks like the end of its requests (grpc.aio), and half a file
    # would be put in place. But only a call that lives takes this: else we are cancelled here.
    await _whole(context.send_initial_metadata(()))


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, cancelled or not: an answer to a call with one under way would be lost."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def _messages(
    first: pb.ConnectMcpRequest, requests: AsyncIterator[pb.ConnectMcpRequest]
) -> AsyncIterator[bytes]:
    if first.message:
        yield first.message
    async for request in requests:
        yield request.message


def _response(event: Output | Exit) -> pb.ExecResponse:
    if isinstance(event, Exit):
        return pb.ExecResponse(exit=pb.ExecExit(code=event.code, signal=event.signal))
    if event.stream is Kind.STDOUT:
        return pb.ExecResponse(stdout=event.data)
    return pb.ExecResponse(stderr=event.data)


def _part(part: FileInfo | bytes) -> pb.ReadFileResponse:
    if isinstance(part, FileInfo):
        return pb.ReadFileResponse(info=pb.FileInfo(size=part.size, mode=part.mode))
    return pb.ReadFileResponse(data=part)


def _guest(guest: Guest) -> pb.Guest:
    return pb.Guest(
        vm_id=guest.vm_id,
        state=pb.GuestState.Value(f"GUEST_STATE_{guest.state.name}"),
        reason=guest.reason,
        boot_id=guest.boot_id,
        agent_version=guest.agent_version,
        kernel=guest.kernel,
        os=guest.os,
        warnings=guest.warnings,
    )
