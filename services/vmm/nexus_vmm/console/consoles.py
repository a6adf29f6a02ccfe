"""The serial consoles of all VMs: what they printed, what they print, and what is typed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nexus_rpc.errors import ResourceExhausted, Unavailable, invalid_field
from nexus_vmm.console.follower import Chunk, Follower, cut
from nexus_vmm.console.reader import Reader, read_console
from nexus_vmm.console.serial import check_typable, type_into

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nexus.vmm.v1 import vmm_pb2
    from nexus_vmm.places import Places
    from nexus_vmm.vm import Vm

FOLLOWERS = 64
"""Callers that follow at one time (see GetConsoleLog)."""

_SECOND = 1_000_000_000
_LAST_SECOND = 253_402_300_799
"""Of the year 9999 (google/protobuf/timestamp.proto)."""


@dataclass(frozen=True)
class Wanted:
    """What part of a log is wanted (see GetConsoleLogRequest); `since` in nanoseconds."""

    tail_bytes: int = 0
    tail_lines: int = 0
    since: int = 0
    follow: bool = False


def check_wanted(request: vmm_pb2.GetConsoleLogRequest) -> Wanted:
    """Return what a request asks for. Raises InvalidArgument (INVALID_FIELD)."""
    since = request.since
    if not (0 <= since.seconds <= _LAST_SECOND and 0 <= since.nanos < _SECOND):
        given = f"{since.seconds} s and {since.nanos} ns"
        raise invalid_field("since", given, "a time from 1970 to 9999")
    return Wanted(
        tail_bytes=request.tail_bytes,
        tail_lines=request.tail_lines,
        since=since.seconds * _SECOND + since.nanos,
        follow=request.follow,
    )


class Consoles:
    """Reads and follows the logs, and types."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._followers: dict[Follower, str] = {}
        self._closed = False

    async def read(self, vm: Vm, wanted: Wanted) -> AsyncGenerator[Chunk, None]:
        """Yield the part of a VM's log that is wanted, oldest first.

        Raises ResourceExhausted (TOO_MANY_FOLLOWERS), Unavailable (STOPPING) and OSError.
        """
        directory = self._places.console(vm.id)
        if wanted.follow:
            reader = Reader(directory, wanted.since)
            async with aclosing(self._follow(vm, reader, wanted)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        log = await asyncio.to_thread(
            read_console, directory, wanted.tail_bytes, wanted.tail_lines, wanted.since
        )
        for piece in cut(log):
            yield Chunk(piece, 0)

    def type(self, vm: Vm, data: bytes) -> None:
        """Type into a live VM's console; never waits.

        Raises FailedPrecondition (VM_STATE, NO_SERIAL_INPUT), ResourceExhausted (CONSOLE_BUSY).
        """
        check_typable(vm)
        type_into(vm, self._places.serial(vm.id), data)
        for follower, vm_id in self._followers.items():
            if vm_id == vm.id:
                follower.stir()

    def close(self) -> None:
        """End what is followed, which has no end of its own: vmm is stopping."""
        self._closed = True
        for follower in self._followers:
            follower.stop()

    async def _follow(self, vm: Vm, reader: Reader, wanted: Wanted) -> AsyncGenerator[Chunk, None]:
        if self._closed:
            raise Unavailable("STOPPING", "vmm is stopping; follow again once it is back")
        if len(self._followers) >= FOLLOWERS:
            raise ResourceExhausted(
                "TOO_MANY_FOLLOWERS",
                f"{FOLLOWERS} callers follow consoles already, the most there may be; end one",
            )
        follower = Follower(reader)
        self._followers[follower] = vm.id
        try:
            async with aclosing(follower.chunks(wanted.tail_bytes, wanted.tail_lines)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            del self._followers[follower]
