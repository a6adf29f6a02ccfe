"""Mutating calls with a `request_id`: done once, and the answer kept for the repeats."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf import json_format

from nexus_rpc import requests
from nexus_rpc.errors import AlreadyExists

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from nexus_rpc.database import Database

_R = TypeVar("_R", bound="Message")


class Once:
    """The answers given so far, in the service's database.

    The claim is written with the answer, after the deed: killed in between, the deed is done once
    more, which each must bear. So a call with an id costs one commit more, not two.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: dict[str, tuple[Message, asyncio.Future[Any]]] = {}

    async def call(
        self,
        request: Message,
        answer: type[_R],
        do: Callable[[], Awaitable[_R]],
        again: Callable[[], Awaitable[_R]] | None = None,
    ) -> _R:
        """Return the answer of `do`, which must bear being run again after a crash.

        A repeat of a request that was done gets the same answer, or that of `again`; one that
        comes while the first is under way waits for it. Raises AlreadyExists (REQUEST_ID_REUSED),
        InvalidArgument.
        """
        request_id: str = request.request_id  # type: ignore[attr-defined]  # a field of every mutation
        if not request_id:
            return await do()
        if request_id not in self._running:
            # A caller that goes away takes neither the deed nor its answer along.
            task = asyncio.ensure_future(self._do(request_id, request, answer, do, again))
            self._running[request_id] = (request, task)
            task.add_done_callback(lambda _: self._running.pop(request_id))
        first, answering = self._running[request_id]
        if first != request:
            raise AlreadyExists(
                "REQUEST_ID_REUSED",
                f"request_id {request_id!r} is in use for another request "
                f"({type(first).__name__}); use a new one for each request",
                request_id=request_id,
            )
        result: _R = await asyncio.shield(answering)
        return result

    async def _do(
        self,
        request_id: str,
        request: Message,
        answer: type[_R],
        do: Callable[[], Awaitable[_R]],
        again: Callable[[], Awaitable[_R]] | None,
    ) -> _R:
        method = type(request).__name__.removesuffix("Request")

        def find(connection: sqlite3.Connection) -> requests.Claim | None:
            return requests.find(connection, request_id, method, request)

        found = await self._database.read(find)
        if found is not None:
            return await again() if again else json_format.Parse(found.subject, answer())
        result = await do()
        text = json_format.MessageToJson(result, indent=None)

        def finish(connection: sqlite3.Connection) -> None:
            requests.claim(connection, request_id, method, request, text)
            requests.finish(connection, request_id)

        await self._database.write(finish)
        return result
