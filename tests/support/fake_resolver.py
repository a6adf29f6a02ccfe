"""A resolver as netd meets it: it hears what it is told, and says what the test wants."""

import asyncio
from contextlib import asynccontextmanager

import grpc

from nexus.netd.v1 import resolver_pb2_grpc


class FakeResolver(resolver_pb2_grpc.ResolverServiceServicer):
    """Hears what netd says; says what the test wants."""

    def __init__(self):
        self.heard = asyncio.Queue()
        self.to_say = asyncio.Queue()
        self.streams = 0

    async def Drive(self, requests, context):
        self.streams += 1
        hearing = asyncio.create_task(self._hear(requests))
        try:
            while (response := await self.to_say.get()) is not None:
                yield response
        finally:
            hearing.cancel()
            await asyncio.wait({hearing})

    async def _hear(self, requests):
        async for request in requests:
            self.heard.put_nowait(request)

    async def next(self, number=1):
        """Return the next things that were said."""
        async with asyncio.timeout(10):
            return [await self.heard.get() for _ in range(number)]

    async def until_synced(self):
        """Return what is said up to `synced`."""
        said = []
        while not (said and said[-1].synced):
            said += await self.next()
        return said[:-1]


@asynccontextmanager
async def serving(resolver, path):
    """Serve the resolver on a unix socket while the block runs."""
    server = grpc.aio.server()
    resolver_pb2_grpc.add_ResolverServiceServicer_to_server(resolver, server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
