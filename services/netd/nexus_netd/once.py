"""Mutating calls with a `request_id`: done once, and the answer kept for the repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf import json_format

from nexus_rpc import requests

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from nexus_rpc.database import Database

_R = TypeVar("_R", bound="Message")


class Once:
    """The answers given so far, in the service's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def call(
        self,
        request: Message,
        answer: type[_R],
        do: Callable[[], Awaitable[_R]],
        again: Callable[[], Awaitable[_R]] | None = None,
    ) -> _R:
        """Return the answer of `do`, which must bear being run again after a crash.

        A repeat of a request that was done gets the same answer, or that of `again`. Raises
        AlreadyExists (REQUEST_ID_REUSED), InvalidArgument.
        """
        request_id: str = request.request_id  # type: ignore[attr-defined]  # a field of every mutation
        if not request_id:
            return await do()
        method = type(request).__name__.removesuffix("Request")

        def claim(connection: sqlite3.Connection) -> requests.Claim:
            return requests.claim(connection, request_id, method, request, "")

        def forget(connection: sqlite3.Connection) -> None:
            requests.forget(connection, request_id)

        found = await self._database.write(claim)
        if found.state == "done":
            return await again() if again else json_format.Parse(found.subject, answer())
        try:
            result = await do()
        except BaseException:
            await self._database.write(forget)
            raise
        text = json_format.MessageToJson(result, indent=None)

        def finish(connection: sqlite3.Connection) -> None:
            # Claimed anew with the answer, which was not known at first.
            requests.forget(connection, request_id)
            requests.claim(connection, request_id, method, request, text)
            requests.finish(connection, request_id)

        await self._database.write(finish)
        return result
