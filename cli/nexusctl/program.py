"""One command against the services, from its event loop to its exit code."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from typing import TYPE_CHECKING, Protocol

from nexus_rpc.errors import NexusError
from nexusctl import failure
from nexusctl.endpoint import resolve
from nexusctl.services import Services

if TYPE_CHECKING:
    from argparse import Namespace

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command(Protocol):
    """A module of `nexusctl.commands`."""

    async def run(self, options: Namespace, services: Services) -> int:
        """Do it, and return the exit code. Raises Failure and NexusError."""
        ...


def run(options: Namespace) -> int:
    """Run the command that was parsed, and return its exit code. Raises Failure."""
    leaf = options.leaf
    command: Command = importlib.import_module(f"nexusctl.commands.{leaf.module}")
    try:
        return asyncio.run(_run(command, options))
    except NexusError as error:
        told = failure.of_command if leaf.takes_command else failure.of
        words = {word: getattr(options, word, "") or "" for word in ("vm", "network")}
        words["command"] = leaf.prog.removeprefix("nexusctl ")
        raise told(error, words) from error
    except failure.Failure as end:
        if leaf.takes_command:
            end.exit_code = failure.OWN
        raise


async def _run(command: Command, options: Namespace) -> int:
    """Run the command; SIGINT, SIGTERM or SIGHUP cancels it, and it ends as a shell tells it."""
    task = asyncio.current_task()
    caught: list[int] = []

    def cancel(number: int) -> None:
        caught.append(number)
        if task is not None:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, cancel, number)
    endpoint = resolve(getattr(options, "endpoint", None), os.environ)
    try:
        async with Services(endpoint, os.environ.get("TRACEPARENT", "")) as services:
            return await command.run(options, services)
    except asyncio.CancelledError:
        if not caught:
            raise
        return 128 + caught[0]
