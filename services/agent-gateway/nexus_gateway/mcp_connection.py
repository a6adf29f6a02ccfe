"""HTTP connections of the MCP endpoint, bounded: every local user can open them, token or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

_HEAD_SECONDS = 10.0
"""From connecting to the end of the first request's head."""


class McpConnection(H11Protocol):
    """uvicorn's connection, which must soon ask for something and gives way while it has not.

    uvicorn takes any number of connections and waits for ever for their first request, so that
    idle ones would use up the gateway's file descriptors.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Take a connection, in the place of the oldest silent one where there are too many."""
        super().connection_made(transport)
        self._silent_until = self.loop.time() + _HEAD_SECONDS
        self._deadline = self.loop.call_at(self._silent_until, self._drop_silent)
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            self._oldest_silent()._drop_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clear up."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def _oldest_silent(self) -> McpConnection:
        others = (each for each in self.connections if isinstance(each, McpConnection))
        return min(
            (each for each in others if each._is_silent()),
            key=lambda each: each._silent_until,
            default=self,
        )

    def _is_silent(self) -> bool:
        return self.cycle is None

    def _drop_silent(self) -> None:
        if self._is_silent():
            self.connections.discard(self)  # at once: more may be accepted before it is closed
            self.transport.abort()
