"""nexusctl vm logs: what the serial console printed."""

from __future__ import annotations

import json
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING

from nexus.vmm.v1 import vmm_pb2
from nexusctl import failure
from nexusctl.services import WRITE
from nexusctl.stdio import Output
from nexusctl.terminal import plain_console

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services


async def run(options: Namespace, services: Services) -> int:
    """Print the log: as it is, or with control characters made visible on a terminal."""
    vmm = services.vmm
    request = vmm_pb2.GetConsoleLogRequest(vm=options.vm)
    log = bytearray()  # vmm keeps at most 1 MiB
    async with aclosing(vmm.stream(vmm.stub.GetConsoleLog, request, WRITE)) as pieces:
        async for piece in pieces:
            log += piece.data
    shown = tail(bytes(log), options.tail)
    if options.json:
        print(json.dumps({"vm": options.vm, "log": shown.decode("utf-8", "replace")}))
    else:
        await Output().write(plain_console(shown) if sys.stdout.isatty() else shown)
    return failure.OK


def tail(log: bytes, lines: int | None) -> bytes:
    """Return the last `lines` lines of `log`, or all of it."""
    if lines is None:
        return log
    return b"".join(log.splitlines(keepends=True)[-lines:])
