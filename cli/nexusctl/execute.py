"""Running a command in a guest with its streams on this side's."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from nexus.gateway.v1 import gateway_pb2
from nexus_rpc.errors import DataLoss, ResourceExhausted
from nexusctl.progress import progress
from nexusctl.stdio import STDERR, Input, Output

if TYPE_CHECKING:
    from argparse import Namespace

    from nexusctl.services import Services

MAX_STDIN = 1024 * 1024
"""Bytes of standard input that Exec takes."""


async def piped_input() -> bytes:
    """Return standard input to its end, or nothing where it is a terminal or closed.

    Raises ResourceExhausted (STDIN_TOO_LARGE).
    """
    source = Input()
    data = bytearray()
    if not source.is_piped():
        return b""
    async with progress("reading standard input"), aclosing(source.chunks()) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_STDIN:
                raise ResourceExhausted(
                    "STDIN_TOO_LARGE", f"standard input is over {MAX_STDIN} bytes"
                )
    return bytes(data)


async def execute(services: Services, vm: str, options: Namespace, stdin: bytes) -> int:
    """Run `options.argv` in a VM and return its exit code; leaving early kills it in the guest.

    Raises NexusError.
    """
    gateway = services.gateway
    request = gateway_pb2.ExecRequest(
        vm=vm, argv=options.argv, env=dict(options.env), cwd=options.cwd, stdin=stdin
    )
    stdout, stderr = Output(), Output(STDERR)
    async with aclosing(gateway.stream(gateway.stub.Exec, request)) as events:
        async for event in events:
            match event.WhichOneof("event"):
                case "stdout":
                    await stdout.write(event.stdout)
                case "stderr":
                    await stderr.write(event.stderr)
                case "exit":
                    return event.exit.code
    raise DataLoss("GUEST_PROTOCOL", "the command's output ended without its exit code")
