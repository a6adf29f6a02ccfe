"""What a server tells of itself in grpc.health.v1.Health."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Source = Callable[[], Awaitable[Mapping[str, bool]]]

EVERY = 30.0
"""Seconds between two looks at what a service depends on."""

_STATUS = {
    True: health_pb2.HealthCheckResponse.SERVING,
    False: health_pb2.HealthCheckResponse.NOT_SERVING,
}


class Health:
    """The statuses of a server's services and of their parts.

    `names` are those of the services: the server as a whole, "", serves as long as all of them do.
    A service that no source tells of serves.
    """

    def __init__(self, names: Sequence[str], sources: Sequence[Source]) -> None:
        self._names = names
        self._sources = sources
        self.servicer = aio.HealthServicer()

    async def tell(self) -> None:
        """Ask the sources, and set each status by what they say."""
        well = dict.fromkeys(self._names, True)
        for source in self._sources:
            well |= await source()
        whole = all(well[name] for name in self._names)
        for name, serves in {"": whole, **well}.items():
            await self.servicer.set(name, _STATUS[serves])

    async def keep_telling(self) -> None:
        """Tell again every 30 s, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            await self.tell()

    async def stop(self) -> None:
        """Say from now on that nothing serves."""
        await self.servicer.enter_graceful_shutdown()
