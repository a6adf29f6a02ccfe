"""The program of a service: its command line and its settings, then its server."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from nexus_rpc import server
from nexus_rpc.settings import SettingsError, load

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack


class ServiceSettings(Protocol):
    """The settings of a service: how it is served, beside its own."""

    @property
    def server(self) -> server.ServerSettings:
        """Sockets, logs, telemetry."""


_S = TypeVar("_S", bound=ServiceSettings)


def run(
    name: str,
    cls: type[_S],
    compose: Callable[[_S, AsyncExitStack, asyncio.TaskGroup], Awaitable[Sequence[server.Binding]]],
) -> int:
    """Serve what `compose` puts together from the settings; see `nexus_rpc.server.main`.

    The settings are a `cls` from /etc/nexus/NAME.toml, or from --config FILE. Returns the exit
    code: 2 for a command line or a file that cannot be used.
    """
    parser = argparse.ArgumentParser(prog=f"nexus-{name}")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(f"/etc/nexus/{name}.toml"),
        metavar="FILE",
        help="settings (default: %(default)s)",
    )
    arguments = parser.parse_args()
    try:
        settings = load(cls, arguments.config)
    except SettingsError as error:
        sys.stderr.write(f"nexus-{name}: {error}\n")
        return 2
    return server.main(name, settings.server, functools.partial(compose, settings))
