"""nexusctl vm logs: what the serial console printed, and prints."""

from __future__ import annotations

import codecs
import json
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure
from nexusctl.services import SESSION, WRITE
from nexusctl.stdio import Output
from nexusctl.terminal import PlainConsole, note

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import AsyncGenerator

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the log, and go on as the console prints if that was asked for.

    As it is, or with control characters made visible on a terminal.
    """
    request = vmm_pb2.GetConsoleLogRequest(
        vm=options.vm, tail_lines=options.tail or 0, follow=options.follow
    )
    if options.since is not None:
        request.since.FromMicroseconds(options.since)
    async with aclosing(_pieces(services, request)) as pieces:
        await (_print_json(options, pieces) if options.json else _print(pieces))
    return failure.OK


async def _pieces(
    services: Services, request: vmm_pb2.GetConsoleLogRequest
) -> AsyncGenerator[bytes, None]:
    vmm = services.vmm
    seconds = SESSION if request.follow else WRITE
    async with aclosing(vmm.stream(vmm.stub.GetConsoleLog, request, seconds)) as answers:
        async for answer in answers:
            if answer.dropped_bytes:
                note(f"{answer.dropped_bytes} bytes or more were lost here: they came too fast")
            yield answer.data


async def _print(pieces: AsyncGenerator[bytes, None]) -> None:
    output = Output()
    plain = PlainConsole() if sys.stdout.isatty() else None
    async for piece in pieces:
        await output.write(plain.more(piece) if plain else piece)


async def _print_json(options: Namespace, pieces: AsyncGenerator[bytes, None]) -> None:
    """Print the log as one object, or each piece as one where it goes on."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    output = Output()
    log = ""

    async def put(text: str) -> None:
        await output.write(json.dumps({"vm": options.vm, "log": text}).encode() + b"\n")

    async for piece in pieces:
        log += decoder.decode(piece)
        if options.follow:
            await put(log)
            log = ""
    log += decoder.decode(b"", final=True)
    if log or not options.follow:
        await put(log)
