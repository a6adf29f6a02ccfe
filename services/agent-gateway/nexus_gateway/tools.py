"""The four MCP tools: what they take, what they give, what they do in a guest."""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mcp_types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from nexus_gateway.operations import MAX_STDIN, Command
from nexus_gateway.streams import Exit, FileInfo, Output, Streams
from nexus_guest.wire import Kind
from nexus_rpc.errors import InvalidArgument, invalid_field

if TYPE_CHECKING:
    from nexus.vmm.v1.vmm_pb2 import Vm

MAX_READ = 6 << 20
"""Most bytes of one file_read: as base64 it still fits a message of MCP over gRPC."""
DEFAULT_READ = 512 << 10
"""Bytes of a file_read that names no limit: clients of the official SDK take 1 MiB an event."""
MAX_OUTPUT = 256 << 10
"""Most bytes kept of each of a command's streams, for the same reason."""

Progress = Callable[[bytes], Awaitable[None]]
Encoding = Literal["utf-8", "base64"]
FilePath = Annotated[str, Field(description="Absolute path in the VM.")]


Mode = Annotated[int, Field(strict=True)] | Annotated[str, Field(pattern="^[0-7]{3,5}$")]


class _Arguments(BaseModel):
    # Strict about names: a misspelt option would be ignored in silence otherwise.
    model_config = ConfigDict(extra="forbid")


class FileReadArguments(_Arguments):
    """Arguments of file_read."""

    path: FilePath
    encoding: Encoding = Field("utf-8", description="base64 for what is not text.")
    offset: int = Field(0, ge=0, description="First byte to read.")
    limit: int = Field(DEFAULT_READ, ge=1, le=MAX_READ, description="Most bytes to read.")


class FileReadResult(BaseModel):
    """Result of file_read."""

    content: str
    encoding: Encoding
    size: int = Field(description="Size of the whole file in bytes.")
    mode: str = Field(description="Permission bits, in octal.")
    next_offset: int = Field(description="Where to go on reading.")
    truncated: bool = Field(description="Whether the file goes on after next_offset.")


class FileWriteArguments(_Arguments):
    """Arguments of file_write."""

    path: FilePath
    content: str
    encoding: Encoding = Field("utf-8", description="base64 for what is not text.")
    mode: Mode | None = Field(
        None,
        description=(
            "Permission bits: in octal as text, such as '0755', or as their number."
            " Default: as before, or 0644."
        ),
    )


class FileWriteResult(BaseModel):
    """Result of file_write."""

    size: int = Field(description="Bytes written.")


class FileDeleteArguments(_Arguments):
    """Arguments of file_delete."""

    path: FilePath


class FileDeleteResult(BaseModel):
    """Result of file_delete."""

    deleted: bool


class RunCommandArguments(_Arguments):
    """Arguments of run_command."""

    command: str = Field(description="Program, by name or absolute path. There is no shell.")
    args: list[str] = Field(default_factory=list, description="Its arguments.")
    cwd: str = Field("", description="Working directory. Default: the user's home.")
    env: dict[str, str] = Field(default_factory=dict, description="Added to the environment.")
    stdin: str = Field("", max_length=MAX_STDIN, description="Text for its standard input.")
    timeout_seconds: float = Field(
        600.0, gt=0, le=86_400, description="The command is killed after so many seconds."
    )


class RunCommandResult(BaseModel):
    """Result of run_command."""

    exit_code: int | None = Field(
        description="128 + signal if a signal ended it; null if it was killed by the timeout."
    )
    success: bool = Field(description="Whether exit_code is 0.")
    stdout: str
    stderr: str
    truncated: bool = Field(
        description=f"Whether only the first {MAX_OUTPUT} bytes of a stream are given."
    )


@dataclass(frozen=True)
class Call:
    """One call of a tool: the live VM it is for, and where news of its progress go."""

    vm: Vm
    streams: Streams
    progress: Progress


@dataclass(frozen=True)
class Tool:
    """A tool as clients see it, and what runs it."""

    name: str
    description: str
    arguments: type[BaseModel]
    result: type[BaseModel]
    annotations: ToolAnnotations
    run: Callable[[Call, Any], Awaitable[BaseModel]]


async def _file_read(call: Call, arguments: FileReadArguments) -> FileReadResult:
    offset, limit = arguments.offset, arguments.limit
    data = bytearray()
    skipped = 0
    truncated = False
    info = FileInfo(size=0, mode=0)
    async with aclosing(call.streams.read(call.vm, arguments.path)) as parts:
        async for part in parts:
            if isinstance(part, FileInfo):
                info = part
                continue
            start = min(len(part), offset - skipped)
            skipped += start
            data += memoryview(part)[start:]
            if len(data) > limit:
                del data[limit:]
                truncated = True
                break
    if arguments.encoding == "base64":
        content, used = base64.b64encode(data).decode(), len(data)
    else:
        content, used = _text(bytes(data), offset=offset, final=not truncated)
    return FileReadResult(
        content=content,
        encoding=arguments.encoding,
        size=info.size,
        mode=f"{info.mode:04o}",
        next_offset=skipped + used,
        truncated=truncated,
    )


def _text(data: bytes, *, offset: int, final: bool) -> tuple[str, int]:
    """Return the text and how many bytes it is; a character cut off by the limit is left out."""
    try:
        text, used = codecs.utf_8_decode(data, "strict", final)
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            "INVALID_FIELD",
            f"the file is not UTF-8 at byte {offset + error.start}: read it with encoding base64",
        ) from None
    return text, used


async def _file_write(call: Call, arguments: FileWriteArguments) -> FileWriteResult:
    mode = int(arguments.mode, 8) if isinstance(arguments.mode, str) else arguments.mode
    content = _bytes(arguments)
    return FileWriteResult(
        size=await call.streams.write(call.vm, arguments.path, mode, _whole(content))
    )


def _bytes(arguments: FileWriteArguments) -> bytes:
    if arguments.encoding == "utf-8":
        return arguments.content.encode()
    try:
        return base64.b64decode(arguments.content, validate=True)
    except binascii.Error as error:
        raise invalid_field("content", arguments.content, f"base64 ({error})") from None


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _file_delete(call: Call, arguments: FileDeleteArguments) -> FileDeleteResult:
    await call.streams.delete(call.vm, arguments.path)
    return FileDeleteResult(deleted=True)


async def _run_command(call: Call, arguments: RunCommandArguments) -> RunCommandResult:
    command = Command(
        argv=(arguments.command, *arguments.args),
        env=arguments.env,
        cwd=arguments.cwd,
        stdin=arguments.stdin.encode(),
    )
    kept = {Kind.STDOUT: bytearray(), Kind.STDERR: bytearray()}
    truncated = False
    exit_code: int | None = None
    try:
        async with (
            asyncio.timeout(arguments.timeout_seconds),
            aclosing(call.streams.exec(call.vm, command)) as events,
        ):
            async for event in events:
                match event:
                    case Output(stream, data):
                        # Read on even when full: the command must not hang on a full pipe.
                        room = MAX_OUTPUT - len(kept[stream])
                        truncated = truncated or len(data) > room
                        kept[stream] += data[:room]
                        await call.progress(data)
                    case Exit(code, _):
                        exit_code = code
    except TimeoutError:
        kept[Kind.STDERR] += (
            f"\nkilled after {arguments.timeout_seconds:g} s; raise timeout_seconds for more\n"
        ).encode()
    return RunCommandResult(
        exit_code=exit_code,
        success=exit_code == 0,
        stdout=kept[Kind.STDOUT].decode(errors="replace"),
        stderr=kept[Kind.STDERR].decode(errors="replace"),
        truncated=truncated,
    )


def _annotations(
    title: str, *, read_only: bool, idempotent: bool, open_world: bool
) -> ToolAnnotations:
    return ToolAnnotations(
        title=title,
        read_only_hint=read_only,
        destructive_hint=not read_only,
        idempotent_hint=idempotent,
        open_world_hint=open_world,
    )


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="file_read",
            description=(
                "Read a file in the VM, as text or base64. A large file comes in parts:"
                " go on at next_offset while truncated is true."
            ),
            arguments=FileReadArguments,
            result=FileReadResult,
            annotations=_annotations(
                "Read a file", read_only=True, idempotent=True, open_world=False
            ),
            run=_file_read,
        ),
        Tool(
            name="file_write",
            description=(
                "Write a file in the VM, replacing it whole or not at all."
                " Missing parent directories are made."
            ),
            arguments=FileWriteArguments,
            result=FileWriteResult,
            annotations=_annotations(
                "Write a file", read_only=False, idempotent=True, open_world=False
            ),
            run=_file_write,
        ),
        Tool(
            name="file_delete",
            description="Delete a file in the VM. Not for directories.",
            arguments=FileDeleteArguments,
            result=FileDeleteResult,
            annotations=_annotations(
                "Delete a file", read_only=False, idempotent=False, open_world=False
            ),
            run=_file_delete,
        ),
        Tool(
            name="run_command",
            description=(
                "Run a program in the VM and return its output and exit code. There is no shell:"
                " for pipes and such, run sh with args ['-c', '...']. The command is killed if"
                " the call is cancelled or takes longer than timeout_seconds."
            ),
            arguments=RunCommandArguments,
            result=RunCommandResult,
            annotations=_annotations(
                "Run a command", read_only=False, idempotent=False, open_world=True
            ),
            run=_run_command,
        ),
    )
}
