"""Operations in a guest, each on a connection of its own to the stream port.

Leaving an operation early closes its connection, and the guest then kills the command or drops
the half-written file. A caller who reads slowly slows the guest; nothing piles up here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from nexus_gateway import metrics
from nexus_gateway.operations import check_mode, check_path
from nexus_gateway.reasons import error_of
from nexus_gateway.untrusted import number
from nexus_guest.wire import MAX_PAYLOAD, STREAM_PORT, Frame, Kind
from nexus_rpc.errors import DataLoss, NexusError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from nexus.vmm.v1.vmm_pb2 import Vm
    from nexus_gateway.operations import Command
    from nexus_gateway.vsock import Connection, Dial

_tracer = trace.get_tracer(__name__)

_MAX_OPERATIONS = 48
"""Operations at once in one guest, which itself serves 64."""
_DIAL_TIMEOUT = 5.0
_TIMEOUT = 60.0
"""Seconds that a guest may take for a step: an answer, the next piece of a file, taking data."""


@dataclass(frozen=True)
class Output:
    """A piece of a command's output: `stream` is Kind.STDOUT or Kind.STDERR."""

    stream: Kind
    data: bytes


@dataclass(frozen=True)
class Exit:
    """How a command ended: 128 + signal where a signal ended it."""

    code: int
    signal: int


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and permission bits of a file when it was opened."""

    size: int
    mode: int


class Streams:
    """Runs operations in guests.

    All raise Unavailable (GUEST_UNREACHABLE), DataLoss (GUEST_PROTOCOL), ResourceExhausted
    (GUEST_BUSY) and what `reasons` makes of a guest's ERROR.
    """

    def __init__(self, dial: Dial, using: Callable[[str], AbstractContextManager[None]]) -> None:
        """`using` gives a block for which the VM with that id is in use."""
        self._dial = dial
        self._using = using
        self._busy: Counter[str] = Counter()

    async def exec(self, vm: Vm, command: Command) -> AsyncGenerator[Output | Exit, None]:
        """Run a command: its output as it comes, then its exit. Close it to kill the command."""
        began = time.monotonic()
        metrics.commands.add(1)
        try:
            async with (
                self._operation(vm, command.request()) as connection,
                _pumping(connection, _one(command.stdin)),
            ):
                _expect(await connection.receive(timeout=_TIMEOUT), Kind.REPLY)
                while True:
                    # No deadline: a command may be silent as long as its caller waits.
                    frame = await connection.receive(timeout=None)
                    if frame.kind is Kind.EXIT:
                        yield _exit(frame)
                        return
                    _expect(frame, Kind.STDOUT, Kind.STDERR)
                    metrics.received.add(len(frame.payload))
                    yield Output(frame.kind, frame.payload)
        finally:
            metrics.command_seconds.record(time.monotonic() - began)

    async def read(self, vm: Vm, path: str) -> AsyncGenerator[FileInfo | bytes, None]:
        """Read a file: what it is, then its bytes."""
        request: dict[str, object] = {"op": "read", "path": check_path("path", path)}
        async with self._operation(vm, request) as connection:
            reply = _expect(await connection.receive(timeout=_TIMEOUT), Kind.REPLY).message
            size, mode = (
                number(reply.get("size"), below=1 << 64),
                number(reply.get("mode"), below=1 << 32),
            )
            if size is None or mode is None:
                raise DataLoss("GUEST_PROTOCOL", "the guest's answer lacks the file's size or mode")
            yield FileInfo(size=size, mode=mode & 0o7777)
            while True:
                frame = _expect(await connection.receive(timeout=_TIMEOUT), Kind.DATA, Kind.END)
                if frame.kind is Kind.END:
                    return
                metrics.received.add(len(frame.payload))
                yield frame.payload

    async def write(self, vm: Vm, path: str, mode: int | None, chunks: AsyncIterable[bytes]) -> int:
        """Write a file, all of it or nothing, and its parents. Returns the number of bytes."""
        request: dict[str, object] = {
            "op": "write",
            "path": check_path("path", path),
            "parents": True,
        }
        if check_mode(mode) is not None:
            request["mode"] = mode
        async with self._operation(vm, request) as connection, _pumping(connection, chunks) as sent:
            # Early only if the guest cannot write: it says why, and takes no more.
            answer = asyncio.create_task(connection.receive(timeout=None))
            try:
                await asyncio.wait({sent, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    await sent
                async with asyncio.timeout(_TIMEOUT):
                    reply = _expect(await answer, Kind.REPLY).message
                    size = await sent
            except TimeoutError:
                raise Unavailable(
                    "GUEST_UNREACHABLE", f"the guest did not finish {path!r} in {_TIMEOUT:g} s"
                ) from None
            finally:
                await _end(answer)
        if reply.get("size") != size:
            raise DataLoss("GUEST_PROTOCOL", f"the guest did not write the {size} bytes sent to it")
        return size

    async def delete(self, vm: Vm, path: str) -> None:
        """Delete a file."""
        request: dict[str, object] = {"op": "delete", "path": check_path("path", path)}
        async with self._operation(vm, request) as connection:
            _expect(await connection.receive(timeout=_TIMEOUT), Kind.REPLY)

    @asynccontextmanager
    async def _operation(self, vm: Vm, request: dict[str, object]) -> AsyncIterator[Connection]:
        if self._busy[vm.id] >= _MAX_OPERATIONS:
            raise ResourceExhausted(
                "GUEST_BUSY",
                f"VM {vm.name!r} has {_MAX_OPERATIONS} operations under way: wait for one to end",
            )
        self._busy[vm.id] += 1
        # Not made current: an operation may end in another context than it began in.
        span = _tracer.start_span(f"guest {request['op']}", attributes={"nexus.vm": vm.id})
        try:
            with self._using(vm.id):
                async with await self._dial(
                    vm.vsock_path, STREAM_PORT, timeout=_DIAL_TIMEOUT
                ) as connection:
                    await connection.request(request, timeout=_TIMEOUT)
                    yield connection
        except NexusError as error:
            span.set_status(trace.StatusCode.ERROR, error.reason)
            raise
        finally:
            span.end()
            self._busy[vm.id] -= 1
            if not self._busy[vm.id]:
                del self._busy[vm.id]


@asynccontextmanager
async def _pumping(
    connection: Connection, chunks: AsyncIterable[bytes]
) -> AsyncIterator[asyncio.Task[int]]:
    """Send `chunks` as DATA, then END, while the block runs; the task returns the bytes sent."""
    task = asyncio.create_task(_pump(connection, chunks))
    try:
        yield task
    finally:
        await _end(task)


async def _pump(connection: Connection, chunks: AsyncIterable[bytes]) -> int:
    size = 0
    async for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), MAX_PAYLOAD):
            piece = view[start : start + MAX_PAYLOAD]
            await connection.send(Kind.DATA, piece, timeout=_TIMEOUT)
            metrics.sent.add(len(piece))
            size += len(piece)
    await connection.send(Kind.END, timeout=_TIMEOUT)
    return size


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for it; what it raised was dealt with, or matters no more."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _one(chunk: bytes) -> AsyncIterator[bytes]:
    if chunk:
        yield chunk


def _expect(frame: Frame, *kinds: Kind) -> Frame:
    if frame.kind is Kind.ERROR:
        raise error_of(frame.message)
    if frame.kind not in kinds:
        names = " or ".join(kind.name for kind in kinds)
        raise DataLoss("GUEST_PROTOCOL", f"the guest sent {frame.kind.name}, expected {names}")
    return frame


def _exit(frame: Frame) -> Exit:
    code, signal = (
        number(frame.message.get("code"), below=256),
        number(frame.message.get("signal", 0), below=128),
    )
    if code is None or signal is None:
        raise DataLoss("GUEST_PROTOCOL", f"the guest sent EXIT {frame.message!r:.200}")
    return Exit(code=code, signal=signal)
