"""Copying a file into a guest and out of it."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import stat
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import grpc

from nexus.gateway.v1 import gateway_pb2
from nexusctl.failure import USAGE, Failure
from nexusctl.progress import Progress, progress
from nexusctl.services import LONG
from nexusctl.settled import settled
from nexusctl.stdio import Input, Output
from nexusctl.writing import finish, write

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from typing import BinaryIO

    from nexusctl.services import Services

    Store = Callable[[bytes], Awaitable[object]]

_CHUNK = 256 * 1024
_REMOTE = re.compile(r"([a-z0-9][a-z0-9-]{0,62}):(.*)", re.DOTALL)
_PERMISSIONS = 0o777
"""Kept of a guest's file: set-uid bits of a hostile guest have no business on this side."""


@dataclass(frozen=True)
class Place:
    """A file: `path` in the guest of `vm`, or on this side where `vm` is empty; "-" is stdio."""

    vm: str
    path: str


def place(text: str) -> Place:
    """Return the place that SRC or DST names. Raises Failure (USAGE)."""
    match = _REMOTE.fullmatch(text)
    if match is None:
        return Place("", text)
    vm, path = match.groups()
    if not path.startswith("/"):
        raise Failure(
            f"{text!r}: the path in the guest must be absolute",
            f"{vm}:/{path}, or ./{text} for a file on this side",
            USAGE,
        )
    return Place(vm, path)


async def copy(services: Services, source: Place, target: Place) -> None:
    """Copy one file with its permission bits. Raises Failure and NexusError.

    Neither side sees half a file: what is there stays until the copy is whole.
    """
    if bool(source.vm) == bool(target.vm):
        raise Failure(
            "one of SRC and DST must be in a guest, the other here",
            "nexusctl vm cp FILE NAME:/PATH, or nexusctl vm cp NAME:/PATH FILE",
            USAGE,
        )
    async with progress("copying") as shown:
        if target.vm:
            await _upload(services, source.path, target, shown)
        else:
            await _download(services, source, target.path, shown)


async def _upload(services: Services, source: str, target: Place, shown: Progress) -> None:
    async with AsyncExitStack() as stack:
        size = 0
        message = gateway_pb2.FileTarget(vm=target.vm, path=target.path)
        if source == "-":
            chunks = Input().chunks()
        else:
            file = await _open(Path(source))
            stack.callback(file.close)
            status = os.fstat(file.fileno())
            size, message.mode = status.st_size, stat.S_IMODE(status.st_mode)
            chunks = _file_chunks(file)
        if message.path.endswith("/"):
            if source == "-":
                raise Failure(f"{message.path} is a directory", "name the file in it", USAGE)
            message.path += Path(source).name
        await stack.enter_async_context(aclosing(chunks))
        await _send(services, message, _counted(chunks, size, shown))


async def _open(path: Path) -> BinaryIO:
    try:
        status = await asyncio.to_thread(path.stat)
        if not stat.S_ISREG(status.st_mode):
            raise Failure(
                f"{path} is no regular file",
                "a directory goes as a tar archive: tar -c DIR | nexusctl vm cp - NAME:/PATH",
            )
        return await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from error


async def _file_chunks(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


async def _counted(
    chunks: AsyncIterator[bytes], size: int, shown: Progress
) -> AsyncIterator[bytes]:
    done = 0
    async for chunk in chunks:
        done += len(chunk)
        shown.text = f"copied {done / 1e6:.1f}{f' of {size / 1e6:.1f}' if size else ''} MB"
        yield chunk


async def _send(
    services: Services, target: gateway_pb2.FileTarget, chunks: AsyncIterator[bytes]
) -> None:
    gateway = services.gateway
    call = gateway.stub.WriteFile(timeout=LONG, metadata=gateway.metadata)
    try:
        if await write(call, gateway_pb2.WriteFileRequest(target=target)):
            async for chunk in chunks:
                if not await write(call, gateway_pb2.WriteFileRequest(data=chunk)):
                    break
        await finish(call)
        await call
    except grpc.aio.AioRpcError as error:
        raise await gateway.error(error, f"within {LONG:g} s") from error
    finally:
        call.cancel()  # before the end, this leaves the guest's old file


async def _download(services: Services, source: Place, target: str, shown: Progress) -> None:
    gateway = services.gateway
    request = gateway_pb2.ReadFileRequest(vm=source.vm, path=source.path)
    async with aclosing(gateway.stream(gateway.stub.ReadFile, request)) as answers:
        first = await anext(answers, gateway_pb2.ReadFileResponse())
        if not first.HasField("info"):
            raise Failure("the gateway sent no file", "nexusctl version")
        data = _counted((answer.data async for answer in answers), first.info.size, shown)
        if target == "-":
            await _receive(data, Output().write, first.info.size)
            return
        try:
            path = await asyncio.to_thread(_landing, target, PurePosixPath(source.path).name)
            await _replace(path, first.info, data)
        except OSError as error:
            raise Failure(f"{error.filename or target}: {error.strerror}") from error


def _landing(target: str, name: str) -> Path:
    """Return the file to replace: links are followed, in a directory it gets the source's name."""
    path = Path(target).resolve()
    if path.is_dir():
        path /= name
    if path.exists() and not path.is_file():
        raise Failure(f"{path} is no regular file", "nexusctl vm cp NAME:/PATH - > DEVICE")
    return path


async def _replace(path: Path, info: gateway_pb2.FileInfo, data: AsyncIterator[bytes]) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    async with AsyncExitStack() as stack:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        stack.callback(part.unlink, missing_ok=True)
        descriptor = await settled(asyncio.to_thread(os.open, part, flags, 0o600))
        file = stack.enter_context(os.fdopen(descriptor, "wb", buffering=0))

        async def store(chunk: bytes) -> None:
            view = memoryview(chunk)
            while view:
                view = view[await asyncio.to_thread(os.write, descriptor, view) :]

        await _receive(data, store, info.size)
        os.fchmod(file.fileno(), info.mode & _PERMISSIONS)
        await asyncio.to_thread(os.fsync, descriptor)
        part.replace(path)


async def _receive(data: AsyncIterator[bytes], store: Store, size: int) -> None:
    done = 0
    async for chunk in data:
        await store(chunk)
        done += len(chunk)
    if done < size:
        raise Failure(
            f"only {done} of {size} bytes came: the file shrank while it was read",
            "run the command again once nothing writes to it",
        )
