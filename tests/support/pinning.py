"""A resolver that asks nobody: it pins what the test says it has answered."""

import asyncio
from contextlib import asynccontextmanager

import grpc

from nexus.netd.v1 import resolver_pb2 as pb
from nexus.netd.v1 import resolver_pb2_grpc

SECONDS = 10


class PinningResolver(resolver_pb2_grpc.ResolverServiceServicer):
    """Waits for netd to drive it. Use `pinning_resolver()`."""

    def __init__(self):
        self._context = None
        self._driven = asyncio.Event()
        self._waiting = {}
        self._number = 0

    async def Drive(self, requests, context):
        self._context = context
        async for request in requests:
            kind = request.WhichOneof("say")
            if kind == "synced":
                self._driven.set()
            elif kind in ("pinned", "not_pinned"):
                self._waiting.pop(getattr(request, kind)).set_result(kind == "pinned")

    async def pin(self, vm_id, domain, addresses, slots, ttl=600):
        """Say that the guest is about to be given `addresses`. Returns whether they are pinned."""
        async with asyncio.timeout(SECONDS):
            await self._driven.wait()
            self._number += 1
            answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
            request = pb.PinRequest(
                number=self._number,
                vm_id=vm_id,
                domain=domain,
                addresses=addresses,
                ttl=ttl,
                slots=slots,
            )
            await self._context.write(pb.DriveResponse(pin=request))
            return await answer

    async def say(self, response):
        """Say anything, once netd drives."""
        async with asyncio.timeout(SECONDS):
            await self._driven.wait()
            await self._context.write(response)


@asynccontextmanager
async def pinning_resolver(path):
    """Serve one on the unix socket `path`."""
    server = grpc.aio.server()
    resolver = PinningResolver()
    resolver_pb2_grpc.add_ResolverServiceServicer_to_server(resolver, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield resolver
    finally:
        await server.stop(0)
